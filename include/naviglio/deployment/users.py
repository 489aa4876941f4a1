"""Who may log in to the embedded Airflow: names, roles and passwords, in files of its folder."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from naviglio.deployment.settings import ADMIN, Place, keep
from naviglio.errors import ConfigError

ROLES = {
    "viewer": "sees DAGs, runs, logs and the page",
    "user": "also triggers runs and answers questions",
    "op": "also manages connections, pools and variables",
    "admin": "may do everything",
}
_NAME = re.compile(r"[A-Za-z0-9_.@-]+")  # a colon or comma would end the name in Airflow's setting


def roles(place: Place) -> dict[str, str]:
    """Return every user's role."""
    return {ADMIN: "admin"} | _read(place.folder / "users.json")


def password(place: Place, name: str = ADMIN) -> str:
    """Return a user's password; only the owner of the file can read it."""
    file = place.folder / "passwords.json"
    try:
        found: dict[str, str] = json.loads(file.read_text())
    except FileNotFoundError as problem:
        raise ConfigError(
            f"{file}: no Airflow was started here yet. Run `naviglio airflow start`."
        ) from problem
    except PermissionError as problem:
        raise ConfigError(
            f"{file}: only the account that started Airflow may read it."
        ) from problem
    if name not in found:
        raise ConfigError(f"Airflow has no user {name!r}; it has {', '.join(sorted(found))}.")
    return found[name]


def add(place: Place, name: str, role: str) -> str:
    """Let somebody log in, or give a user another role; return the password, made once."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"user {name!r}: write a name of letters, digits and any of _ . @ -")
    if role not in ROLES:
        raise ConfigError(f"role {role!r} is none of {', '.join(ROLES)}.")
    if name == ADMIN and role != "admin":
        raise ConfigError(f"{ADMIN!r} is how the start itself logs in, and stays its admin.")
    password(place)  # an Airflow was started here
    known = _read(place.folder / "passwords.json")
    said = known.setdefault(name, secrets.token_urlsafe(18))
    keep(place.folder / "passwords.json", known)
    keep(place.folder / "users.json", roles(place) | {name: role})
    return said


def remove(place: Place, name: str) -> None:
    """Let a user log in no more."""
    password(place, name)
    if name == ADMIN:
        raise ConfigError(f"{ADMIN!r} is how the start itself logs in, and stays.")
    for file in ("users.json", "passwords.json"):
        keep(place.folder / file, _without(_read(place.folder / file), name))


def setting(place: Place) -> str:
    """Return all users as Airflow's SimpleAuthManager takes them: `admin:admin,ann:viewer`."""
    return ",".join(f"{name}:{role}" for name, role in sorted(roles(place).items()))


def _without(found: Mapping[str, str], name: str) -> dict[str, str]:
    return {one: value for one, value in found.items() if one != name}


def _read(file: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return found
