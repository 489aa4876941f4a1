"""Who may run as whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from naviglio.config.pipeline import load_pipeline
from naviglio.connections.connections import Connections
from naviglio.connections.registry import open_target
from naviglio.connections.run_as import RunAs
from naviglio.errors import ConfigError
from naviglio.model import Pipeline


def pipeline(folder: Path, head: str = "", table: str = "") -> Pipeline:
    """Return the pipeline `shop` with two tables and a transform."""
    path = folder / "shop.yaml"
    path.write_text(
        f"source: operations\ntarget: warehouse\n{head}\n"
        f"tables:\n  a: {{capture: diff{table}}}\n  b: {{capture: diff, load: {{run_as: near}}}}\n"
        "transforms:\n  c: {program: c.sql, inputs: {a: all}, day: d, key: [d], run_as: made}\n"
    )
    return load_pipeline(path)


def run_as(said: Pipeline) -> dict[str, str]:
    """Return the principals of all loads by table."""
    return {t.name: t.run_as for group in said.landings for t in group.tables}


def test_the_nearest_run_as_counts(tmp_path: Path) -> None:
    """What the load says goes before what the table says, and that before the pipeline."""
    assert run_as(pipeline(tmp_path)) == {"a": "", "b": "near", "c": "made"}
    assert run_as(pipeline(tmp_path, "run_as: all")) == {"a": "all", "b": "near", "c": "made"}
    own = pipeline(tmp_path, "run_as: all\nload: {run_as: loads}", ", run_as: mine")
    assert run_as(own)["a"] == "mine"
    assert run_as(pipeline(tmp_path, "run_as: all\nload: {run_as: loads}"))["a"] == "loads"


def test_only_what_the_deployment_lists_is_allowed(tmp_path: Path) -> None:
    """The list is by pipeline and connection; the variable goes before the file."""
    said, file = pipeline(tmp_path), tmp_path / "run_as.yaml"
    file.write_text("shop: {warehouse: [near, made], other: [all]}\n")

    RunAs("", file).check(said)
    for elsewhere in ("{shop: {other: [near, made]}}", "{bar: {warehouse: [near, made]}}"):
        with pytest.raises(ConfigError):
            RunAs(elsewhere, file).check(said)


def test_a_principal_that_is_not_listed_is_told_with_the_known_ones(tmp_path: Path) -> None:
    """The error names pipeline, table, principal, the known ones and where to list it."""
    listed = "{shop: {warehouse: [made, nearby]}}"
    with pytest.raises(ConfigError) as raised:
        RunAs(listed, tmp_path / "none").check(pipeline(tmp_path))

    told = str(raised.value)
    assert "pipeline 'shop', table 'b': `run_as: near` is not allowed on connection" in told
    assert "known: made, nearby. Did you mean 'nearby'?" in told
    assert "NAVIGLIO_RUN_AS" in told
    assert "'c'" not in told


def test_without_a_list_nobody_may(tmp_path: Path) -> None:
    """Then the file is named that could list it; who names no principal needs no list."""
    with pytest.raises(ConfigError, match=r"known: none.*run_as\.yaml"):
        RunAs("", tmp_path / "run_as.yaml").check(pipeline(tmp_path))
    path = tmp_path / "plain.yaml"
    path.write_text("source: o\ntarget: w\ntables: {a: {capture: diff}}\n")
    RunAs("", tmp_path / "run_as.yaml").check(load_pipeline(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("shop: {warehouse: near}", r"run_as.yaml:1: expected \{PIPELINE"),
        ("x: {}\nshop: [near]", r"run_as.yaml:2: expected"),
        ("shop: {warehouse: [1]}", "expected"),
        ("shop: {warehouse: [near]}\nshop: {}", r"run_as.yaml:2: expected"),
        ("{", "expected"),
    ],
)
def test_a_list_that_is_misread_allows_nobody(tmp_path: Path, text: str, told: str) -> None:
    """A mistake in it stops every pipeline that would run as another."""
    file = tmp_path / "run_as.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=told):
        RunAs("", file).check(pipeline(tmp_path))


def test_a_list_that_others_may_change_is_refused(tmp_path: Path) -> None:
    """Who can write it could take any principal."""
    file = tmp_path / "run_as.yaml"
    file.write_text("shop: {warehouse: [near, made]}")
    file.chmod(0o664)
    with pytest.raises(ConfigError, match="chmod go-w"):
        RunAs("", file).check(pipeline(tmp_path))


def test_a_system_without_principals_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file database has nobody to run as."""
    monkeypatch.setattr("naviglio.adapters.postgres.IMPERSONATES", False)
    known = Connections({"NAVIGLIO_CONN_W": "postgresql://h/d"}, None)
    with pytest.raises(ConfigError, match="'w': a postgresql database has no principals"):
        open_target("w", known, "near")
