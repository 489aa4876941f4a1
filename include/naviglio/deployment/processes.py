"""Long-lived processes by name: started once, known by id and start time, ended whole."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_PATIENCE_S = 20.0
_ORPHANS_PATIENCE_S = 3.0  # nobody is left to tell them what to finish
_LOG_BYTES = 50 * 2**20
_MARK = "NAVIGLIO_PROCESS"  # in the environment of a process and of all that come from it


@dataclass(frozen=True)
class Process:
    """One process of a name; its id counts only with the start time noted beside it."""

    folder: Path
    name: str

    @property
    def log(self) -> Path:
        """What it and its children say."""
        return self.folder / "logs" / f"{self.name}.log"

    def found(self) -> psutil.Process | None:
        """Return it if it lives; a stranger who was given its id later is not it."""
        try:
            note = self._noted()
            process = psutil.Process(note["pid"])
            same = abs(process.create_time() - note["started"]) < 1
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (KeyError, psutil.Error):
            return None

    def told(self, settings: Mapping[str, str]) -> bool:
        """Whether it was started with just these settings."""
        return self._noted().get("settings") == _digest(settings)

    def start(
        self, command: Sequence[str], environ: Mapping[str, str], settings: Mapping[str, str]
    ) -> None:
        """Start it in a session of its own, its output in `log`; it outlives the caller.

        What is left of a killed predecessor is ended first. `settings` is what of its environment
        must be as noted for it to go on, see `told`.
        """
        self.stop()
        mark = secrets.token_hex(8)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                command, env={**environ, **settings, _MARK: mark}, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        started = psutil.Process(child.pid).create_time()
        child.returncode = 0  # it is meant to outlive this object, which else warns of it
        note = {"pid": child.pid, "started": started, "mark": mark, "settings": _digest(settings)}
        self._note.write_text(json.dumps(note))

    def stop(self) -> bool:
        """End it and all that came from it: asked first, killed after 20 s. Tell whether it lived.

        What outlived it (its executor's workers after a `kill -9`) is asked and killed likewise.
        """
        process = self.found()
        family = [process, *process.children(recursive=True)] if process else self._orphans()
        if family:
            _signal([process] if process else family, signal.SIGTERM)
            psutil.wait_procs(family, timeout=_PATIENCE_S if process else _ORPHANS_PATIENCE_S)
            left = [*family, *self._orphans()]
            _signal(left, signal.SIGKILL)
            psutil.wait_procs(left, timeout=_PATIENCE_S)
        self._note.unlink(missing_ok=True)
        return bool(family)

    def bound_log(self, most_bytes: int = _LOG_BYTES) -> None:
        """Move what a log too large holds to `NAME.log.1`, whoever writes to it meanwhile.

        Lines that are written in between may be lost; the process appends to the emptied file.
        """
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > most_bytes:
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                os.truncate(self.log, 0)

    def log_end(self) -> str:
        """Return the last lines of its log."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        return ""

    def _orphans(self) -> list[psutil.Process]:
        """Return what came from it, whoever its parent is by now.

        Its session tells, or its mark: a process that shows a title of its own hides its mark, one
        with a session of its own (Spark's) doesn't.
        """
        note = self._noted()
        mark, pid, since = note.get("mark"), note.get("pid"), note.get("started", 0.0)
        if mark is None or pid is None:
            return []
        session = None if _is_a_strangers(pid, since) else pid
        return [one for one in psutil.process_iter() if _came_from(one, session, mark, since)]

    def _noted(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            note: dict[str, Any] = json.loads(self._note.read_text())
            return note
        return {}

    @property
    def _note(self) -> Path:
        return self.folder / f"{self.name}.pid"


def _is_a_strangers(pid: int, since: float) -> bool:
    """Whether the id went to another process, which it can't while a session of that id lives."""
    with suppress(psutil.Error):
        return bool(abs(psutil.Process(pid).create_time() - since) >= 1)
    return False


def _came_from(process: psutil.Process, session: int | None, mark: str, since: float) -> bool:
    with suppress(psutil.Error, OSError):
        if process.create_time() < since or process.status() == psutil.STATUS_ZOMBIE:
            return False
        return os.getsid(process.pid) == session or bool(process.environ().get(_MARK) == mark)
    return False


def _digest(settings: Mapping[str, str]) -> str:
    return hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()


def _signal(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def holder(port: int) -> str:
    """Say who listens on a port of this machine, as far as this account may know."""
    with suppress(psutil.Error):
        for found in psutil.net_connections("tcp"):
            if found.status == psutil.CONN_LISTEN and found.laddr.port == port and found.pid:
                return f"{psutil.Process(found.pid).name()} (process {found.pid})"
    return "another process"
