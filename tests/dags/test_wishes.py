"""The kind of a run decides what it asks for."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from naviglio.errors import ConfigError
from naviglio.partitions import window_of
from naviglio_airflow.wishes import Asked, asked_of
from tests.dags.told import context

ZONE = "America/New_York"
DAY = (window_of("2013-01-05", ZoneInfo(ZONE)),)


@pytest.mark.parametrize("kind", ["backfill", "manual", "operator_triggered"])
def test_partitions_are_read_again_when_somebody_asks(kind: str) -> None:
    """A backfill, and a run by hand with a key, read that day's window."""
    asked = asked_of(context(kind, "2013-01-05"), None)
    assert asked.wish(ZONE).windows == DAY


def test_a_run_by_hand_may_say_its_day_in_the_form() -> None:
    """The form's day is as good as a key; where both stand there they must agree."""
    assert asked_of(context(day="2013-01-05"), None).wish(ZONE).windows == DAY
    assert asked_of(context("manual", "2013-01-05", day="2013-01-05"), None).partition
    with pytest.raises(ConfigError, match="2013-01-06"):
        asked_of(context("manual", "2013-01-05", day="2013-01-06"), None)


@pytest.mark.parametrize("kind", ["scheduled", "asset_triggered", "asset_materialization"])
def test_a_schedules_own_key_reads_nothing_again(kind: str) -> None:
    """What a timetable starts drains, whatever day it calls its own."""
    wish = asked_of(context(kind, "2013-01-05"), None).wish(ZONE)
    assert not wish.windows
    assert not wish.verify


def test_a_run_by_hand_without_a_key_drains_and_may_verify() -> None:
    """The form's box is what `--verify` is on the command line; an empty form asks for nothing."""
    assert asked_of(context(verify=True), None).wish(ZONE).verify
    asked = asked_of(context(verify=None, tables=None, day=None), None)
    assert asked == Asked()


def test_a_key_that_names_no_day_is_told() -> None:
    """The message shows how a day is written."""
    with pytest.raises(ConfigError, match="2013-01-05"):
        asked_of(context("manual", "yesterday"), None).wish(ZONE)
