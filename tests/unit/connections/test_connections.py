"""Connection ids to URLs, and nowhere a password."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from naviglio.connections.connections import Connections
from naviglio.errors import ConfigError

URL = "postgresql://ann:s3cret@db:5432/shop"


def _file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "connections.yaml"
    path.write_text(text, "utf-8")
    path.chmod(mode)
    return path


def _error(connections: Connections, conn_id: str = "shop") -> str:
    with pytest.raises(ConfigError) as raised:
        connections.url(conn_id)
    assert "s3cret" not in str(raised.value)
    assert raised.value.__cause__ is None
    return str(raised.value)


def test_the_environment_comes_first(tmp_path: Path) -> None:
    """A variable beats the file, even a file that can't be read; `-` is written `_`."""
    file = _file(tmp_path, "- broken", 0o644)
    connections = Connections({"NAVIGLIO_CONN_SHOP_DB": URL}, file)
    assert connections.url("shop-db") == URL


def test_a_connection_may_be_absent(tmp_path: Path) -> None:
    """Who can do without it asks so; a file that can't be read is an error nonetheless."""
    connections = Connections({}, _file(tmp_path, f"shop: {URL}\n"))
    assert (connections.find("shop"), connections.find("spark_default")) == (URL, None)
    with pytest.raises(ConfigError):
        Connections({}, _file(tmp_path, "- broken")).find("spark_default")


@pytest.mark.parametrize("text", [f"shop: {URL}\n", f'{{"shop": "{URL}"}}'], ids=["yaml", "json"])
def test_the_file_is_asked_next(tmp_path: Path, text: str) -> None:
    """YAML and JSON are both read; an empty variable says nothing."""
    assert Connections({"NAVIGLIO_CONN_SHOP": ""}, _file(tmp_path, text)).url("shop") == URL


def test_an_unknown_id_names_the_known_ones_and_both_places(tmp_path: Path) -> None:
    """The reader learns which ids there are, and where to add this one; no URL is shown."""
    file = _file(tmp_path, f"shop: {URL}\n")
    said = _error(Connections({"NAVIGLIO_CONN_WAREHOUSE": URL, "PATH": "/"}, file), "shopp")
    assert "no connection is called 'shopp'; known: shop, warehouse. Did you mean 'shop'?" in said
    assert f"NAVIGLIO_CONN_SHOPP, or the line `shopp: URL` to {file}" in said


def test_without_a_file_only_the_environment_is_named() -> None:
    """Nobody is sent to a file that would not be read."""
    said = _error(Connections({}, None))
    assert said.endswith("known: none. Add the environment variable NAVIGLIO_CONN_SHOP.")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """The answer holds the command that mends it."""
    file = _file(tmp_path, f"shop: {URL}\n", mode)
    assert f"Run: chmod 600 {file}" in _error(Connections({}, file))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- s3cret\n", 1),
        ("a: b\nshop: *s3cret\n", 2),
        ("a: b\nshop: [s3cret]\n", 2),
        ("a: b\nshop:\n", 2),
        ("a: b\nshop: !!int s3cret\n", 2),
        ("shop: s3cret\nshop: s3cret\n", 2),
        ('shop: "s3cret', 1),
    ],
)
def test_a_broken_file_is_refused_without_its_content(tmp_path: Path, text: str, line: int) -> None:
    """File and line are told, and nothing of what stands there: it may be a password."""
    file = _file(tmp_path, text)
    assert f"{file}:{line}: expected lines of `connection: URL`" in _error(Connections({}, file))


def test_a_password_shows_nowhere(tmp_path: Path) -> None:
    """Neither repr nor str of the object holds a URL."""
    connections = Connections({"NAVIGLIO_CONN_SHOP": URL}, _file(tmp_path, f"b: {URL}\n"))
    assert "s3cret" not in f"{connections!r} {connections}"


def test_written_connections_are_read_and_others_stay(tmp_path: Path) -> None:
    """Lines and comments that are there stay; only the owner may read the file."""
    file = _file(tmp_path, f"# mine\nother: {URL}  # kept\nshop: old\n")
    connections = Connections({}, file)
    connections.write({"shop": URL, "new": URL})
    assert [connections.url(one) for one in ("other", "shop", "new")] == [URL] * 3
    assert file.read_text().startswith(f"# mine\nother: {URL}  # kept\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_first_write_makes_folder_and_file(tmp_path: Path) -> None:
    """Whatever the umask, the file is its owner's; a URL is one line, however long."""
    file = tmp_path / "home" / "connections.yaml"
    long = f"{URL}?application_name={'x ' * 300}x"
    before = os.umask(0)
    try:
        Connections({}, file).write({"shop": long})
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Connections({}, file).url("shop") == long
    assert len(file.read_text().splitlines()) == 1


def test_a_broken_file_is_not_written_over(tmp_path: Path) -> None:
    """What can't be read is a person's to mend, and leaves no temporary file behind."""
    file = _file(tmp_path, "- mine\n")
    with pytest.raises(ConfigError):
        Connections({}, file).write({"shop": URL})
    assert file.read_text() == "- mine\n"
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == [file.name]


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    """Two starts beside each other both find their connections afterwards."""
    file = tmp_path / "connections.yaml"
    ids = [f"c{n}" for n in range(12)]
    threads = [
        threading.Thread(target=Connections({}, file).write, args=({one: URL},)) for one in ids
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Connections({}, file).url(one) for one in ids] == [URL] * 12
