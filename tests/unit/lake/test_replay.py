"""A lake table is a function of its landing, however its batches came to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from naviglio.lake.table import LakeTable
from naviglio.model import PartKind, TableSchema
from tests.unit.lake.landing import AT, SCHEMA, Landing, Mirror, at, column, row, rows_in, window

N, M = column("n", "int32", "int32"), column("m", "string")
ID, TIME, X = SCHEMA.columns
SCHEMAS = [
    TableSchema(columns=columns, key=("id",))
    for columns in ((ID, TIME, X), (ID, TIME, X, N), (ID, M, TIME), (N, ID, TIME, X, M))
]


@st.composite
def batches(draw: st.DrawFn) -> tuple[str | None, list[dict[str, Any]], dict[str, Any]]:
    """Draw what `Landing.add` takes: a part of few keys, days and values under any schema."""
    kind = draw(st.sampled_from(["stream", "window", "snapshot", "stream", None]))
    if kind is None:
        return None, [], {}
    schema = draw(st.sampled_from(SCHEMAS))
    first = draw(st.integers(1, 3))
    days = st.integers(first, first + 1) if kind == "window" else st.integers(1, 5)
    text = st.sampled_from(["a", "b", None])
    rows = [
        {k: v for k, v in new.items() if k in (*schema.names, "_op")}
        for id_ in draw(st.lists(st.integers(1, 6), unique=True, max_size=5))
        for new in [row(id_, draw(text), draw(days), m=draw(text), n=draw(st.integers(0, 1)))]
    ]
    if kind == "stream":
        for new in rows:
            new["_op"] = draw(st.sampled_from(["upsert", "upsert", "delete"]))
    more: dict[str, Any] = {"schema": schema}
    if kind == "window":
        more |= {"event_time": "at", "windows": (window(first, first + 2), window(9, 10))}
    return kind, rows, more


@settings(max_examples=12)
@given(drawn=st.lists(batches(), min_size=1, max_size=6), compact=st.sets(st.integers(1, 6)))
def test_every_road_leads_to_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Any], compact: set[int]
) -> None:
    """One by one with compactions, by rewrites and by a rebuild, lake and feed equal the replay."""
    folder = tmp_path_factory.mktemp("replay")
    landing = Landing(folder / "landing")
    lake = LakeTable(str(folder / "lake"))
    tight = LakeTable(str(folder / "tight"), merge_bytes=1)
    mirrors = Mirror(lake), Mirror(tight)
    for n, (kind, rows, more) in enumerate(drawn, 1):
        landing.add(kind, rows, **more)
        for mirror in mirrors:
            landing.apply(mirror.lake)
            mirror.load()
            assert mirror.rows == rows_in(mirror.lake) == landing.replayed(), (n, mirror.lake)
        if n in compact:
            DeltaTable(lake.uri).optimize.compact()
    lake.rebuild(landing.batches, str(landing.root))
    assert rows_in(lake) == landing.replayed()


@pytest.mark.parametrize("kind", ["stream", "window", "snapshot"])
def test_a_batch_beyond_memory_is_a_rewrite(
    lakes: tuple[Landing, LakeTable], kind: PartKind
) -> None:
    """A part that no MERGE can hold comes in one commit too; its feed says why it is whole."""
    landing, lake = lakes
    landing.add("snapshot", [row(i, "a", i % 4 + 1) for i in range(20)])
    landing.apply(lake)
    mirror = Mirror(lake)
    mirror.load()
    days: dict[str, Any] = {"event_time": "at", "windows": (window(1, 2),)}
    rows = [row(1, "b", 1), row(99, "c", 1)]
    landing.add(kind, rows, **(days if kind == "window" else {}))
    before = lake.version()
    landing.apply(lake)
    assert before is not None
    assert (lake.version(), lake.number()) == (before + 1, 2)
    feed = mirror.load()
    assert feed is not None
    assert "WRITE Overwrite" in feed.why_whole
    assert mirror.rows == rows_in(lake) == landing.replayed()


@pytest.fixture
def lakes(tmp_path: Path) -> tuple[Landing, LakeTable]:
    """Return a landing, and a lake table whose merges may hold nothing."""
    return Landing(tmp_path / "landing"), LakeTable(str(tmp_path / "lake"), merge_bytes=1)


NAMES = [
    "a.b", 'say "x"', "Order", "group", "with space", "a,b", "it's", "`tick`", "s", "t", "feed",
    "UPPER", "%41", "x'; --", "select", "ünï", "{0}", "a/b=c", "1st", "$1 ?;",
]  # fmt: skip


@pytest.mark.parametrize("merge_bytes", [200 << 20, 1])
@pytest.mark.parametrize("place", range(0, len(NAMES), 4))
def test_any_name_is_a_column(tmp_path: Path, place: int, merge_bytes: int) -> None:
    """Keys, event times and values under any name pass every kind of part, scan and feed."""
    key, time, *others = NAMES[place:] + NAMES[:place]
    schema = TableSchema(
        columns=(column(key, "string"), column(time, AT), *(column(n, "string") for n in others)),
        key=(key,),
    )
    landing = Landing(tmp_path / "landing", schema=schema)
    lake = LakeTable(str(tmp_path / "lake"), merge_bytes=merge_bytes)
    mirror = Mirror(lake)

    def rows(*ids: str, day: int = 1, said: str = "v") -> list[dict[str, Any]]:
        return [{key: i, time: at(day), **{n: f"{said} {n}" for n in others}} for i in ids]

    days: dict[str, Any] = {"event_time": time, "windows": (window(3, 5),)}
    landing.add("snapshot", rows("a", "b") + rows("c", day=4))
    landing.add("stream", [*rows("a", said="w"), {key: "b", "_op": "delete"}, *rows("d")])
    landing.add("window", rows("e", "a", day=3), **days)
    landing.add("snapshot", rows("e", "a", day=3) + rows("z"))
    wider = TableSchema(columns=(*schema.columns, column('late, "n".n\'', "string")), key=(key,))
    landing.add("stream", [{**rows("a")[0], 'late, "n".n\'': "x"}], schema=wider)
    for n in range(1, 6):
        landing.apply(lake, n)
        mirror.load()
    assert mirror.rows == rows_in(lake) == landing.replayed()
