"""Under which account the embedded server's programs run: they refuse root."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from naviglio.errors import ConfigError


@dataclass(frozen=True)
class Account:
    """Who runs the server's programs, and so owns its files."""

    uid: int
    gid: int
    prefix: tuple[str, ...] = ()

    @property
    def switched(self) -> bool:
        """Tell whether it is another account than the caller's."""
        return self.uid != os.geteuid()

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run to the end, with no setting of the caller's environment in effect."""
        return subprocess.run(
            [*self.prefix, *command],
            user=self.uid if self.switched else None,
            group=self.gid if self.switched else None,
            extra_groups=[] if self.switched else None,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )

    def own(self, path: str | Path) -> None:
        """Give a file or folder, never what a link points to, to this account."""
        if self.switched:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def own_below(self, folder: Path) -> None:
        """Give a folder and all in it to this account."""
        for place, _, files in os.walk(folder):
            for name in (".", *files):
                self.own(Path(place) / name)

    def make_folder(self, folder: Path) -> None:
        """Make a folder for this account alone; a stranger's at this name is refused."""
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (self.uid, os.geteuid()):
            raise ConfigError(
                f"{folder} is no folder or belongs to user {found.st_uid}. Remove it or set TMPDIR."
            )
        folder.chmod(0o700)
        self.own(folder)

    def first_closed(self, folder: Path) -> Path | None:
        """Return the first folder on the way to this one that the account cannot enter."""
        script = 'for d; do cd -- "$d" 2>/dev/null || { printf %s "$d"; exit; }; done'
        closed = self.run("/bin/sh", "-c", script, "sh", *reversed(folder.parents), folder).stdout
        return Path(closed) if closed else None


def account_for(data: Path) -> Account:
    """Choose who runs the server over this data: its owner, or for root an unprivileged name.

    Adds no account and opens no folder. Root's first choice is a user namespace that gives it
    another name, so that files stay its own. Where the kernel or a container forbids that, the
    account `nobody` is taken; where the data is already another user's, that user.
    """
    me = os.geteuid()
    found = data.stat() if data.exists() else None
    owner = found.st_uid if found else me
    if me and owner != me:
        raise ConfigError(
            f"{data} belongs to user {owner}, not to you ({me}). Run as that user, or name another "
            "folder."
        )
    if owner:
        return Account(owner, found.st_gid if found else os.getegid())
    return _unprivileged()


def _unprivileged() -> Account:
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise ConfigError(
            "PostgreSQL must not run as root, and there is no account 'nobody' to run it. "
            "Run as an ordinary user."
        ) from None
    prefix = ("unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
    root_renamed = Account(0, 0, (*prefix, "--"))
    try:
        possible = root_renamed.run("true").returncode == 0
    except FileNotFoundError:
        possible = False
    return root_renamed if possible else Account(nobody.pw_uid, nobody.pw_gid)
