"""Dates and moments as PostgreSQL writes them, beyond the years that Python and Arrow print."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000
_FROM_2000_DAYS = 10_957  # PostgreSQL counts from 2000-01-01, Arrow from 1970-01-01
_FROM_2000_US = _FROM_2000_DAYS * _DAY_US
FIRST_DAY, LAST_DAY = -719_162, 2_932_896  # of the years 1 to 9999
FIRST_US, LAST_US = FIRST_DAY * _DAY_US, (LAST_DAY + 1) * _DAY_US - 1


def date_text(days: int) -> str:
    """Return the text of a date, given in days since 1970 as ADBC delivers it.

    ADBC adds its offset in 32 bits, so the far future and `infinity` arrive wrapped.
    """
    of_server = _wrapped(days - _FROM_2000_DAYS, 32)
    if infinite := _infinite(of_server, 32):
        return infinite
    day, era = _day(of_server + _FROM_2000_DAYS)
    return day + era


def moment_text(us: int, zone: str = "") -> str:
    """Return the text of a timestamp, given in microseconds since 1970 as ADBC delivers it.

    `zone` is what follows the time of day: `+00`, or nothing for a timestamp without zone.
    """
    of_server = _wrapped(us - _FROM_2000_US, 64)
    if infinite := _infinite(of_server, 64):
        return infinite
    days, rest = divmod(of_server + _FROM_2000_US, _DAY_US)
    day, era = _day(days)
    seconds, fraction = divmod(rest, 1_000_000)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    digits = f".{fraction:06}".rstrip("0") if fraction else ""
    return f"{day} {clock}{digits}{zone}{era}"


def microseconds(moment: datetime) -> int:
    """Return the microseconds since 1970 of an aware moment, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _wrapped(value: int, bits: int) -> int:
    """Return the signed integer of so many bits that has the same lowest bits."""
    half = 1 << (bits - 1)
    return (value + half) % (2 * half) - half


def _infinite(of_server: int, bits: int) -> str:
    half = 1 << (bits - 1)
    return {half - 1: "infinity", -half: "-infinity"}.get(of_server, "")


def _day(days: int) -> tuple[str, str]:
    """Return a day of the proleptic Gregorian calendar and its era.

    After `civil_from_days` in Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms".
    """
    era, of_era = divmod(days + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * of_year + 2) // 153  # months since March
    day = of_year - (153 * shifted + 2) // 5 + 1
    month = (shifted + 2) % 12 + 1
    year = year_of_era + era * 400 + (month <= 2)  # noqa: PLR2004 - February
    shown, suffix = (year, "") if year > 0 else (1 - year, " BC")
    return f"{shown:04}-{month:02}-{day:02}", suffix
