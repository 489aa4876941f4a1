"""What a Delta log says of its commits: may a reader trust the change feed over them?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

NOTE = "naviglio"  # the key of our note in a commit's own metadata


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One commit, as far as the change feed is concerned."""

    version: int
    operation: str
    ours: bool
    metadata: bool = False  # schema, properties or protocol
    adds: bool = False  # rows, not only moved files
    removes: bool = False
    changes: bool = False  # change files beside
    files: tuple[Path, ...] = ()  # what the change feed reads of it
    touched_rows: int | None = None  # at most; None where the commit doesn't say

    @property
    def why_not_plain(self) -> str:
        """Why the change feed does not tell all of this commit; empty when it does."""
        by = "" if self.ours else " by someone else"
        if self.operation == "RESTORE" or (self.metadata and not self.ours):
            return f"commit {self.version} is {self.operation}{by}"
        if (self.adds or self.removes) and not self.ours:
            return f"commit {self.version} is {self.operation}{by}"
        if self.removes and not self.changes:
            return f"commit {self.version} is {self.operation} without change rows"
        if not all(file.exists() for file in self.files):
            return f"the change rows of commit {self.version} are gone"
        return ""


def read_commits(folder: str, versions: Iterable[int]) -> list[Commit]:
    """Read commits from the log itself.

    Raises FileNotFoundError where it was cleaned, JSONDecodeError where it is damaged.
    """
    return [_read(Path(folder), version) for version in versions]


def _read(folder: Path, version: int) -> Commit:
    lines = (folder / "_delta_log" / f"{version:020}.json").read_text().splitlines()
    actions: list[dict[str, Any]] = [json.loads(line) for line in lines if line]
    info: dict[str, Any] = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
    mode = info.get("operationParameters", {}).get("mode", "")
    added, removed, changed = (_with_rows(actions, kind) for kind in ("add", "remove", "cdc"))
    return Commit(
        version=version,
        operation=f"{info.get('operation', 'unknown')} {mode}".strip(),
        ours=NOTE in info,
        metadata=any("metaData" in a or "protocol" in a for a in actions),
        adds=bool(added),
        removes=bool(removed),
        changes=bool(changed),
        files=tuple(folder / unquote(action["path"]) for action in changed or added),
        touched_rows=_touched(info.get("operationMetrics", {})) if added or removed else 0,
    )


def _touched(metrics: dict[str, Any]) -> int | None:
    """Return the rows that a commit of ours says it wrote or deleted: a merge, or an append."""
    kinds = ("inserted", "updated", "deleted")
    told = [metrics.get(f"num_target_rows_{kind}") for kind in kinds] + [
        metrics.get("num_added_rows")
    ]
    found = [int(one) for one in told if one is not None]
    return sum(found) if found else None


def _with_rows(actions: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    # Change files always hold rows, whatever their `dataChange` says.
    found = [action[kind] for action in actions if kind in action]
    return [a for a in found if kind == "cdc" or a.get("dataChange", True)]
