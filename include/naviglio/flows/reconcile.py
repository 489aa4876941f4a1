"""Do source, lake and target hold the same rows? Differences are named and told apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow as pa

from naviglio.capture.columns import goes_by_time
from naviglio.capture.reading import Reading, hash_schema, need_one_moment
from naviglio.capture.stream import living, readable
from naviglio.capture.windows import changed_windows, windows_from
from naviglio.conditions import moment_of
from naviglio.errors import ConfigError, RetryableError
from naviglio.flows.capture import reading_of
from naviglio.flows.site import Site
from naviglio.model import ROW_HASH, Group, HashState, TableName, TableSchema, TableSpec, Window
from naviglio.ports import Scan
from naviglio.quality.alike import alike
from naviglio.quality.compare import Comparison, Found, Judge, comparison
from naviglio.storage.engine import quoted

_TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One table against one side; missing, extra and changed rows fail it."""

    table: str
    against: str
    rows: int
    missing: Found
    extra: Found
    changed: Found
    unseen_deletes: Found
    in_flight: Found

    @property
    def ok(self) -> bool:
        """Whether nothing is missing, extra or changed."""
        return not (self.missing.count or self.extra.count or self.changed.count)

    def told(self) -> str:
        """Return what differs, in a line."""
        found = {"missing": self.missing, "extra": self.extra, "changed": self.changed}
        told = (
            f"{rows.count} {name} ({', '.join(rows.keys)})"
            for name, rows in found.items()
            if rows.count
        )
        return f"{self.table} against {self.against}: {', '.join(told)}"


def reconcile(site: Site, group: Group) -> list[Verdict]:
    """Compare source with lake, and lake with target, for every table of the group.

    Raises ConfigError where a table was not captured or loaded yet, RetryableError while other runs
    keep changing what is compared. A transform has no source to compare its lake table with.
    """
    captured = group.tables if group in site.pipeline.groups else ()
    with_lake = [_source_with_lake(site, group, table) for table in captured]
    return with_lake + [_lake_with_target(site, table) for table in group.tables]


def _source_with_lake(site: Site, group: Group, table: TableSpec) -> Verdict:
    """Pin head and lake version first, so that the source's moment is never the older one."""
    lake, head = site.lake(table), site.landing(group).head()
    if not head.number or not lake.exists():
        raise ConfigError(
            f"table {table.name!r} has not been captured yet; "
            f"run `naviglio run {site.pipeline.name}` first."
        )
    version, schema = lake.version(), lake.schema()
    if lake.number() != head.number:
        raise RetryableError(
            f"lake table {table.name!r} has applied batch {lake.number()} of {head.number}: a run "
            "is under way, or failed. Run the pipeline, then reconcile."
        )
    with site.source.snapshot() as snapshot:
        need_one_moment(snapshot, table.source, "a comparison")
        reading = reading_of(site, group, table, head, snapshot)
        # Columns that the source has lost keep in the lake what they held: nothing to compare with.
        here = tuple(column for column in schema.columns if column.name in reading.schema.names)
        return _compared(site, lake.scan(version), reading, replace(schema, columns=here))


def _compared(
    site: Site, actual: Iterator[pa.RecordBatch], reading: Reading, schema: TableSchema
) -> Verdict:
    table, snapshot = reading.spec, reading.snapshot
    if table.deletes.column and table.deletes.column not in schema.names:
        raise RetryableError(
            f"lake table {table.name!r} has no column {table.deletes.column!r} yet, which marks "
            "deletes. Run the pipeline, then reconcile."
        )
    with comparison(schema) as sides:
        judge = _judge(reading, sides)
        scan = reading.scan(
            where=readable(table), hashes="both" if judge.column == ROW_HASH else "none"
        )
        rows = snapshot.read(scan) if judge.marked else living(table, snapshot.read(scan))
        sides.load("expected", site.heard("reconcile", table.name, rows), judge)
        sides.load("actual", actual, replace(judge, marked=""))
        sides.differ(judge)
        blind = table.way == "stream" and table.deletes.way == "none"
        return _verdict(table, "lake", sides, unseen="extra" if blind else "unseen")


def _lake_with_target(site: Site, table: TableSpec) -> Verdict:
    """Compare at the version that the ledger names; a load in between means trying again."""
    lake, name = site.lake(table), str(table.target)
    for _ in range(_TRIES):
        row = site.target.ledger().get(name)
        if row is None:
            raise ConfigError(f"target {name!r} has not been loaded yet; run the pipeline first.")
        if row.ranges:
            raise RetryableError(
                f"target {name!r} is loaded in part ({row.ranges}): it holds two versions. Compare "
                "when the load is through; a run goes on with it."
            )
        if row.batch < (applied := lake.number()):
            raise RetryableError(
                f"target {name!r} holds batch {row.batch} of the lake's {applied}: a load is under "
                "way, or was refused. Run the pipeline, then reconcile."
            )
        schema = lake.schema(row.version)
        described = site.target_as_source.describe(table.target, schema.key)
        with comparison(schema) as sides:
            expected, actual = lake.scan(row.version), _target_rows(site, table.target, described)
            sides.load("expected", alike(expected, schema, described), Judge())
            sides.load("actual", alike(actual, schema, described), Judge())
            if site.target.ledger().get(name) == row:
                sides.differ(Judge())
                return _verdict(table, "target", sides)
    raise RetryableError(f"target {name!r} is being loaded all the time; try again later.")


def _target_rows(site: Site, target: TableName, described: TableSchema) -> Iterator[pa.RecordBatch]:
    with site.target_as_source.snapshot() as snapshot:
        need_one_moment(snapshot, target, "a comparison")
        rows = snapshot.read(Scan(table=target, schema=described))
        yield from site.heard("reconcile", str(target), rows)


def _judge(reading: Reading, sides: Comparison) -> Judge:
    """Return which differences are only in flight: changed in the source after the capture."""
    spec, last = reading.spec, reading.last
    if last is None:
        return Judge()
    if spec.way == "diff" and last.hashes is not None:
        return _judge_by_hash(reading, last.hashes, sides)
    if spec.way == "stream" and last.stream is not None:
        # Without a time a row is read each time or never; a time that no carrier holds is too old.
        timeless = "true" if spec.nulls == "read" else "false"
        moved = f"coalesce({newer(reading.schema, spec, last.stream)}, {timeless})"
        if spec.deletes.column:
            marked, seen = marks(reading.schema, spec.deletes.column), "class <> 'unseen'"
            return Judge(column=spec.modified, in_flight=f"{seen} AND {moved}", marked=marked)
        if last.hashes is None:
            return Judge(column=spec.modified, in_flight=f"class <> 'extra' AND {moved}")
        # Of a swept table: a key that landed may have gone since; one that never did is a fault.
        files = [reading.locate(file.path) for file in last.hashes.files]
        files += reading.landed_since(last.hashes.batch)
        verdict = f"CASE WHEN class = 'extra' THEN {sides.landed(files)} ELSE {moved} END"
        return Judge(column=spec.modified, in_flight=verdict)
    covered = {c.window for c in windows_from(reading).coverage}
    settled = covered - set(changed_windows(reading))
    return Judge(column=spec.event_time, in_flight=_outside(sorted(settled)))


def marks(schema: TableSchema, name: str) -> str:
    """Return the condition, to the local engine, that a row says of itself that it is deleted."""
    flag = schema.column(name).kind == "bool"
    return f"coalesce({quoted(name)}, false)" if flag else f"{quoted(name)} IS NOT NULL"


def newer(schema: TableSchema, spec: TableSpec, point: int) -> str:
    """Return the condition, to the local engine, that the source's row is not below a point."""
    column = schema.column(spec.modified)
    if goes_by_time(schema, spec):
        seen = "try_cast(expected AS TIMESTAMPTZ)" if column.carrier == "string" else "expected"
        return f"{seen} >= '{moment_of(point).isoformat()}'"
    if column.kind == "bytes":  # a count of writes, in eight bytes
        return f"hex(expected) >= '{point.to_bytes(8, 'big').hex().upper()}'"
    return f"expected >= {point}"


def _judge_by_hash(reading: Reading, state: HashState, sides: Comparison) -> Judge:
    """A row is in flight when its hash is not the one that the last capture landed."""
    files, later = ([reading.locate(f.path) for f in kept] for kept in (state.files, state.later))
    known, alike = sides.hashed(files, later, hash_schema(reading.schema, keys_only=False))
    verdict = f"CASE WHEN class = 'extra' THEN {known} ELSE NOT {alike} END"
    return Judge(column=ROW_HASH, in_flight=verdict)


def _outside(windows: list[Window]) -> str:
    inside = [
        f"coalesce(expected, actual) >= '{w.start.isoformat()}' "
        f"AND coalesce(expected, actual) < '{w.end.isoformat()}'"
        for w in windows
    ]
    return f"NOT ({' OR '.join(inside)})" if inside else "true"


def _verdict(table: TableSpec, against: str, sides: Comparison, unseen: str = "unseen") -> Verdict:
    """Return what was found; `unseen` is the class of deletes that the capture can't see."""
    return Verdict(
        table=table.name, against=against, rows=sides.rows, missing=sides.found("missing"),
        extra=Found() if unseen == "extra" else sides.found("extra"),
        changed=sides.found("changed"), unseen_deletes=sides.found(unseen),
        in_flight=sides.found("in flight"),
    )  # fmt: skip
