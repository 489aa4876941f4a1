"""The ground of all runs: one home, its embedded server, TPC-H in it, one pipeline."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from benchmarks.measure import Taken, show, take
from naviglio.config.home import Home
from naviglio.flows import embedded

_TABLES = {
    "lineitem": """
        l_orderkey bigint, l_partkey integer, l_suppkey integer, l_linenumber integer,
        l_quantity numeric(15,2), l_extendedprice numeric(15,2), l_discount numeric(15,2),
        l_tax numeric(15,2), l_returnflag char(1), l_linestatus char(1), l_shipdate date,
        l_commitdate date, l_receiptdate date, l_shipinstruct char(25), l_shipmode char(10),
        l_comment varchar(44), updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (l_orderkey, l_linenumber)""",
    "orders": """
        o_orderkey bigint PRIMARY KEY, o_custkey integer, o_orderstatus char(1),
        o_totalprice numeric(15,2), o_orderdate date, o_orderpriority char(15), o_clerk char(15),
        o_shippriority integer, o_comment varchar(79)""",
}
_PIPELINE = """
pipeline: bench
source: operations
target: warehouse
target_schema: bench
tables:
  orders: {capture: diff}
  lineitem: {capture: {where: updated_at}, deletes: none}
  lineitem_half: {capture: {where: updated_at}, deletes: none}
"""
UPDATES, INSERTS = 399_070, 100_000  # into lineitem at scale 1


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Where a run takes place; `scale` is TPC-H's."""

    home: Home
    scale: float

    @property
    def environ(self) -> dict[str, str]:
        """What the steps' processes find the home by."""
        return {
            "NAVIGLIO_HOME": str(self.home.root),
            "NAVIGLIO_PIPELINES": str(self.home.pipelines),
        }

    @property
    def files(self) -> Path:
        """Where steps leave files."""
        return self.home.root / "files"

    @property
    def changes(self) -> Path:
        """The changes of lineitem as Parquet, `_op` among its columns."""
        return self.files / "changes.parquet"

    def url(self, conn_id: str, database: str = "") -> str:
        """Return the URL of a connection, or of another database on the same server."""
        url = embedded.urls(self.home)[conn_id]
        return urlsplit(url)._replace(path=f"/{database}").geturl() if database else url

    def take(self, step: str, **said: object) -> Taken:
        """Take a step at this home."""
        return take(step, self.environ, **said)

    def run(self, conn_id: str, *statements: str, database: str = "") -> None:
        """Execute statements, each on its own."""
        with psycopg.connect(self.url(conn_id, database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def settle(self) -> None:
        """Write out what earlier steps left in memory, so that none pays for another."""
        self.run("admin", "CHECKPOINT")

    def fresh(self, database: str, template: str) -> str:
        """Copy a database, anew each time; return its URL as the target's role."""
        self.run(
            "admin",
            f"DROP DATABASE IF EXISTS {database} WITH (FORCE)",
            f"CREATE DATABASE {database} TEMPLATE {template} STRATEGY file_copy"
            " OWNER naviglio_target",
            "CHECKPOINT",
        )
        return self.url("warehouse", database)


@contextmanager
def open_ground(scale: float, kept: Path | None) -> Iterator[Ground]:
    """Start the server in a temporary home, or in one that is kept, and stop it."""
    root = kept.absolute() if kept else Path(tempfile.mkdtemp(prefix="naviglio-bench-"))
    ground = Ground(home=Home(root=root, pipelines=root / "pipelines"), scale=scale)
    try:
        embedded.start(ground.home)
        ground.files.mkdir(exist_ok=True)
        ground.home.pipelines.mkdir(exist_ok=True)
        (ground.home.pipelines / "bench.yaml").write_text(_PIPELINE)
        yield ground
    finally:
        embedded.stop(ground.home)
        if kept is None:
            shutil.rmtree(root)


def load_tpch(ground: Ground, table: str) -> None:
    """Make a table of TPC-H in the source by COPY, unless it is there already."""
    with psycopg.connect(ground.url("operations_app"), autocommit=True) as connection:
        if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() != (None,):
            return
        show(f"loading {table} at scale {ground.scale:g}")
        connection.execute(f"CREATE TABLE {table} ({_TABLES[table]})")
        columns = ", ".join(re.findall(r"\b[lo]_\w+(?= \w)", _TABLES[table]))
        generator = shutil.which("tpchgen-cli", path=_beside_python())
        assert generator, "tpchgen-cli is among the development requirements: run `make setup`"
        command = [generator, "csv", "-s", str(ground.scale), "-T", table, "--stdout", "-q"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as made:
            assert made.stdout is not None
            with connection.cursor().copy(
                f"COPY {table} ({columns}) FROM STDIN (FORMAT csv, HEADER)"
            ) as copy:
                while data := made.stdout.read(1 << 20):
                    copy.write(data)
        connection.execute(f"VACUUM (FREEZE, ANALYZE) {table}")


def make_changes(ground: Ground) -> None:
    """Make the changes of lineitem as a file, in random order: changes don't come by key."""
    if ground.changes.exists():
        return
    show("making changes of lineitem")
    updates, inserts = round(UPDATES * ground.scale), round(INSERTS * ground.scale)
    some = "INSERT INTO lineitem_changes SELECT * FROM lineitem ORDER BY md5({}) LIMIT {}"
    ground.run(
        "operations_app",
        "DROP TABLE IF EXISTS lineitem_changes",
        "CREATE TABLE lineitem_changes (LIKE lineitem INCLUDING ALL)",
        some.format("ctid::text", inserts),
        "UPDATE lineitem_changes SET l_orderkey = l_orderkey"
        " + (SELECT max(l_orderkey) FROM lineitem)",
        some.format("ctid::text || ' '", updates),
        "UPDATE lineitem_changes SET l_quantity = l_quantity + 1, updated_at = clock_timestamp()",
    )
    ground.take("write_changes", file=str(ground.changes))
    ground.run("operations_app", "DROP TABLE lineitem_changes")


def make_base(ground: Ground) -> None:
    """Make the database that targets are copied from: lineitem, its key, an index on its time."""
    with psycopg.connect(ground.url("admin"), autocommit=True) as connection:
        there = connection.execute("SELECT FROM pg_database WHERE datname = 'bench_base'")
        if there.fetchone() is not None:
            return
        show("making the target of lineitem")
        connection.execute("CREATE DATABASE bench_base OWNER naviglio_target")
    definition = _TABLES["lineitem"]
    plain = definition[: definition.rindex("PRIMARY KEY")].rstrip().rstrip(",")
    url = ground.url("warehouse", "bench_base")
    with (
        psycopg.connect(ground.url("operations_app")) as source,
        psycopg.connect(url, autocommit=True) as target,
    ):
        target.execute("CREATE SCHEMA bench")
        target.execute(f"CREATE TABLE bench.lineitem ({plain})")
        with (
            source.cursor().copy("COPY lineitem TO STDOUT (FORMAT binary)") as read,
            target.cursor().copy("COPY bench.lineitem FROM STDIN (FORMAT binary)") as write,
        ):
            for data in read:
                write.write(data)
        target.execute("ALTER TABLE bench.lineitem ADD PRIMARY KEY (l_orderkey, l_linenumber)")
        target.execute("CREATE INDEX ON bench.lineitem (updated_at)")
        target.execute("VACUUM (FREEZE, ANALYZE) bench.lineitem")


def _beside_python() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
