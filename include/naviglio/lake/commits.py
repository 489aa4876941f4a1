"""What a Delta log says of its commits: may a reader trust the change feed over them?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naviglio.lake.apply import NOTE


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
        return ""


def read_commits(uri: str, versions: Iterable[int]) -> list[Commit]:
    """Read commits from the log itself; OSError or ValueError where it was cleaned or damaged."""
    log = Path(uri) / "_delta_log"
    return [_parse(version, (log / f"{version:020}.json").read_text()) for version in versions]


def _parse(version: int, text: str) -> Commit:
    actions: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines() if line]
    info: dict[str, Any] = next((a["commitInfo"] for a in actions if "commitInfo" in a), {})
    mode = info.get("operationParameters", {}).get("mode", "")
    return Commit(
        version=version,
        operation=f"{info.get('operation', 'unknown')} {mode}".strip(),
        ours=NOTE in info,
        metadata=any("metaData" in a or "protocol" in a for a in actions),
        adds=_moves_rows(actions, "add"),
        removes=_moves_rows(actions, "remove"),
        changes=any("cdc" in a for a in actions),
    )


def _moves_rows(actions: list[dict[str, Any]], kind: str) -> bool:
    return any(action[kind].get("dataChange", True) for action in actions if kind in action)
