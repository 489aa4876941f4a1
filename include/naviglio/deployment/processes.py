"""Long-lived processes by name: started once, known by id and start time, ended whole."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PATIENCE_S = 20.0


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
            note = json.loads(self._note.read_text())
            process = psutil.Process(note["pid"])
            same = abs(process.create_time() - note["started"]) < 1
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, KeyError, psutil.Error):
            return None

    def start(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Start it in a session of its own, its output in `log`; it outlives the caller."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                command, env=dict(environ), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        started = psutil.Process(child.pid).create_time()
        child.returncode = 0  # it is meant to outlive this object, which else warns of it
        self._note.write_text(json.dumps({"pid": child.pid, "started": started}))

    def stop(self) -> bool:
        """End it and its children: asked first, killed after 20 s. Tell whether it lived."""
        process = self.found()
        if process is not None:
            family = [process, *process.children(recursive=True)]
            _signal([process], signal.SIGTERM)
            _, left = psutil.wait_procs(family, timeout=_PATIENCE_S)
            _signal(left, signal.SIGKILL)
            psutil.wait_procs(left, timeout=_PATIENCE_S)
        self._note.unlink(missing_ok=True)
        return process is not None

    def log_end(self) -> str:
        """Return the last lines of its log."""
        with suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        return ""

    @property
    def _note(self) -> Path:
        return self.folder / f"{self.name}.pid"


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
