"""A process that runs a pipeline and is struck (killed or frozen) at one place: its own doing.

`python -m tests.chaos.victim ERRAND` where ERRAND is JSON; URLs come by the environment. What
became of its runs is in the errand's `told` file, unless it died.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from naviglio.adapters.postgres.target import PostgresTarget
from naviglio.capture.table import Wish
from naviglio.config.home import Home
from naviglio.connections.connections import Connections
from naviglio.errors import NaviglioError
from naviglio.flows.replicate import replicate
from naviglio.flows.site import Site, Tell, open_site
from naviglio.load import plan
from naviglio.model import Deletes, Group, Guard, Pipeline, TableName, TableSpec
from naviglio.partitions import windows_between
from naviglio.points import listening

Way = Literal["stream", "partition", "verify", "diff", "snapshot"]
How = Literal["kill", "stop", ""]

BEFORE_LINK, AFTER_LINK = "manifest: before link", "manifest: after link"
IN_MERGE = "lake: in merge"
UTC = ZoneInfo("UTC")
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What a process is to run, and where it is struck: at the nth time it comes to `where`."""

    folder: str
    way: Way
    table: str
    since: str  # the first partition
    where: str = ""
    how: How = ""
    nth: int = 1
    runs: int = 1  # at most so many, ending with the one in which it was struck
    lock_wait_s: float = 20.0
    range_rows: int = 0  # that one transaction of a progressive load merges; 0: loaded at once

    @property
    def told(self) -> Path:
        """The file in which the process tells what became of its runs."""
        return Path(self.folder, "told.json")

    @property
    def wish(self) -> Wish:
        """What its runs ask for."""
        day = date.fromisoformat(self.since)
        second = (day + timedelta(days=1)).isoformat()
        return {
            "partition": Wish(windows=tuple(windows_between(second, second, UTC).values())),
            "verify": Wish(verify=True),
            "snapshot": Wish(whole="asked for"),
        }.get(self.way, Wish())

    def pipeline(self) -> Pipeline:
        """Return a pipeline of one table."""
        table = TableSpec(
            name=self.table, source=TableName(schema="public", table=self.table),
            target=TableName(schema="kills", table=self.table), key=("id",), event_time="day",
            guard=Guard(fraction=1.0, rows=10**9), **self._ways(),
            visibility="progressive" if self.range_rows else "at_once",
        )  # fmt: skip
        return Pipeline(
            name="kills", source="operations", target="warehouse", time_zone="UTC",
            groups=(Group(name=self.table, tables=(table,)),), fence_margin_s=0.0,
        )  # fmt: skip

    def _ways(self) -> dict[str, Any]:
        if self.way in ("partition", "verify"):
            return {"way": "windows", "since": self.since}
        if self.way == "diff":
            return {"way": "diff"}
        return {"way": "stream", "modified": "modified_at", "deletes": Deletes(way="sweep")}


@contextmanager
def site_of(errand: Errand, connections: Connections, tell: Tell) -> Iterator[Site]:
    """Open the site of an errand; its target waits as long for a lock as the errand says."""
    home = Home(root=Path(errand.folder), pipelines=Path(errand.folder))
    target = PostgresTarget(connections.url("warehouse"), lock_wait_s=errand.lock_wait_s)
    with open_site(errand.pipeline(), home, connections, tell) as site:
        site.__dict__["target"] = target  # in place of opening it with its usual patience
        try:
            yield site
        finally:
            target.close()


def run_once(
    errand: Errand, connections: Connections, wish: Wish, tell: Tell
) -> NaviglioError | None:
    """Replicate once; return what went wrong."""
    with site_of(errand, connections, tell) as site:
        return replicate(site, site.pipeline.groups[0], wish).error


class Blow:
    """Strikes this very process at the nth time that it comes to a place."""

    def __init__(self, errand: Errand) -> None:
        self.errand = errand
        self.left = errand.nth
        self.struck = False

    def come_to(self, place: str) -> None:
        """Strike, if this is the place and the time."""
        if place == "apply: before commit" and self.errand.where == IN_MERGE:
            threading.Thread(target=self._strike_at_new_file, daemon=True).start()
        if place != self.errand.where or self.struck:
            return
        self.left -= 1
        if self.left == 0:
            self.strike()

    def strike(self) -> None:
        """Kill or freeze this process; a frozen one goes on from here when it is woken."""
        self.struck = True
        os.kill(os.getpid(), _SIGNALS[self.errand.how])

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Come to the places around the link that makes a manifest visible."""
        if event == "os.link" and "/manifests/" in str(args[1]):
            self.come_to(BEFORE_LINK)
        elif event == "os.remove" and "/manifests/" in str(args[0]):
            self.come_to(AFTER_LINK)

    def tell(self, stage: str, table: str, rows: int) -> None:
        """Come to a batch of rows on its way."""
        del table, rows
        self.come_to(f"batch: {stage}")

    def _strike_at_new_file(self) -> None:
        """Strike when the merge, which has no named points, has written a file."""
        folder = Path(self.errand.folder, "lake", "kills", self.errand.table)
        known, until = _files(folder), time.monotonic() + 5
        while not self.struck and time.monotonic() < until:
            if _files(folder) != known:
                self.strike()
            time.sleep(0)


def _files(folder: Path) -> set[str]:
    data = {path.name for path in folder.glob("*.parquet")}
    return data | {path.name for path in folder.glob("_change_data/*.parquet")}


def main() -> None:
    """Do the errand that the command line holds."""
    errand = Errand(**json.loads(sys.argv[1]))
    blow = Blow(errand)
    sys.addaudithook(blow.audit)
    connections, told = Connections(os.environ, None), []
    plan.RANGE_ROWS = errand.range_rows or plan.RANGE_ROWS
    with listening(blow.come_to):
        for _ in range(errand.runs):
            error = run_once(errand, connections, errand.wish, blow.tell)
            told.append([cls.__name__ for cls in type(error).__mro__] + [str(error)])
            if blow.struck:
                break
    errand.told.write_text(json.dumps({"struck": blow.struck, "runs": told}))


def as_json(errand: Errand) -> str:
    """Return an errand as its command line."""
    return json.dumps(asdict(errand))


if __name__ == "__main__":
    main()
