"""Sessions of the source's server: their pinned settings, and ADBC's errors as the project's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import adbc_driver_manager
import psycopg
import pyarrow as pa
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from naviglio.adapters.postgres.errors import translate, translated
from naviglio.adapters.postgres.sql import literal
from naviglio.errors import ConfigError, NaviglioError, RetryableError, SourceError
from naviglio.pool import NAMES, Terms, taken

SNAPSHOT_NAME = "naviglio-snapshot"  # application_name: the fence knows its own readers by it
_SETTINGS = {
    "search_path": "pg_catalog",  # nothing can stand before the server's own functions
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "idle_in_transaction_session_timeout": "0",
    "jit": "off",
    "row_security": "off",  # a policy that would hide rows is an error
    "work_mem": "32MB",  # holds the groups of a digest
}
# A killed worker's statement ends soon after it, also where it waits for a lock or hashes a large
# table; servers before 14, or that can't tell, end it when it is through.
_CLIENT_GONE = """CASE WHEN current_setting('server_version_num')::int >= 140000
 AND version() ~* '(linux|darwin|freebsd)'
 THEN set_config('client_connection_check_interval', '10s', {local}) ELSE '' END"""
_ABSENT = ("42P01", "42703", "3F000")  # table, column, schema
_LOST = re.compile(
    r"server closed|terminating connection|could not receive|no connection"
    r"|connection (not open|to server)"
    r"|conflict with recovery|SSL|broken pipe|reset by peer|starting up|shutting down",
    re.IGNORECASE,
)


def pin(terms: Terms, *, local: bool) -> str:
    """Return the statement that pins what texts and hashes depend on, and how long it waits.

    `local` keeps the settings to the transaction, which a pooler between allows.
    """
    waits = {
        "lock_timeout": f"{terms.lock_timeout_s}s",
        "statement_timeout": f"{terms.statement_timeout_s}s",
    }
    calls = [
        f"set_config({literal(k)}, {literal(v)}, {literal(local)})"
        for k, v in {**_SETTINGS, **waits}.items()
    ]
    calls.append(_CLIENT_GONE.format(local=literal(local)))
    return f"SELECT {' || '.join(calls)} AS pinned"


def parted(url: str) -> tuple[str, Terms]:
    """Return what libpq reads of a URL, and what this project does; the URL isn't shown."""
    if "://" not in url:  # libpq's other form, which tests use
        return url, Terms()
    plain, _, query = url.partition("?")
    said = [part.partition("=") for part in query.split("&") if part]
    mine = {name: unquote(value) for name, _, value in said if name in NAMES}
    others = "&".join("".join(part) for part in said if part[0] not in NAMES)  # as they were
    try:
        terms = taken(mine)
    except ValueError as error:
        raise ConfigError(
            f"the connection's URL is not understood: {error}. Write "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE?NAME=VALUE, all percent-encoded."
        ) from None
    return plain + (f"?{others}" if others else ""), terms


def pins_of_texts() -> list[str]:
    """Return statements that pin what moments as text depend on, and take no snapshot."""
    names = ("search_path", "TimeZone", "DateStyle")
    return [f"SET LOCAL {name} = {literal(_SETTINGS[name])}" for name in names]


def conninfo(url: str, application_name: str) -> str:
    """Return what libpq connects by; ConfigError when the URL can't be read (it isn't shown)."""
    plain, terms = parted(url)
    with translated("the source", SourceError):
        given: dict[str, Any] = dict(conninfo_to_dict(plain))
        given.setdefault("connect_timeout", terms.login_timeout_s)
        return make_conninfo(
            **{**given, "application_name": application_name, "client_encoding": "UTF8"}
        )


def place_of(url: str) -> str:
    """Return where a URL leads, for people: no user, no password."""
    plain, _ = parted(url)
    with translated("the source", SourceError):
        given = conninfo_to_dict(plain)
    host, port = given.get("host") or "localhost", given.get("port") or 5432
    return f"source {given.get('dbname') or given.get('user') or ''} at {host}:{port}"


@contextmanager
def translated_adbc(where: str) -> Iterator[None]:
    """Raise ADBC's errors, and what it raises through Arrow, as the project's.

    The original is not chained: it holds whole statements, and with them keys and bounds.
    """
    try:
        yield
    except (adbc_driver_manager.Error, pa.ArrowException, OSError) as error:
        raise translate_adbc(error, where) from None


def translate_adbc(error: Exception, where: str) -> NaviglioError:
    """Return the project's error for one that ADBC or Arrow raised."""
    text = str(error)
    state = getattr(error, "sqlstate", None) or _matched(r"SQLSTATE: (\w{5})", text)
    if state is None:
        return _without_state(text, where)
    said = _matched(r"(?:ERROR|FATAL): +([^\n]*)", text) or text.splitlines()[0]
    if state in _ABSENT:
        return ConfigError(f"{where}: {said} (SQLSTATE {state}). Correct the table or its columns.")
    try:
        known = psycopg.errors.lookup(state)(said)
    except KeyError:
        return SourceError(f"{where}: the server refused the read (SQLSTATE {state}).")
    return translate(
        known, f"{where}: {said}" if state[:2] not in {"22", "P0"} else where, SourceError
    )


def _without_state(text: str, where: str) -> NaviglioError:
    if "Failed to connect" in text:
        told = text.partition("Failed to connect: ")[2].strip()
        return translate(psycopg.OperationalError(told), where, SourceError)
    first = re.sub(r'"[^"]*"', '"..."', text.partition("\n")[0])  # a value may stand in quotes
    if _LOST.search(text):
        return RetryableError(f"{where}: {first}. Trying again is enough once the server is back.")
    return SourceError(f"{where}: {first}.")


def _matched(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1].strip() if found else None
