"""The kind of a run decides what it asks for."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType

from naviglio.errors import ConfigError
from naviglio.partitions import window_of
from naviglio_airflow.wishes import wish_of

ZONE = "America/New_York"
DAY = (window_of("2013-01-05", ZoneInfo(ZONE)),)


@pytest.mark.parametrize("kind", ["backfill", "manual", "operator_triggered"])
def test_partitions_are_read_again_when_somebody_asks(kind: str) -> None:
    """A backfill, and a run by hand with a key, read that day's window.

    A task is told the kind as an enumeration, whose text is not its value.
    """
    assert wish_of(kind, "2013-01-05", ZONE, {}).windows == DAY
    assert wish_of(DagRunType(kind), "2013-01-05", ZONE, {}).windows == DAY


@pytest.mark.parametrize("kind", ["scheduled", "asset_triggered", "asset_materialization"])
def test_a_schedules_own_key_reads_nothing_again(kind: str) -> None:
    """What a timetable starts drains, whatever day it calls its own."""
    wish = wish_of(DagRunType(kind), "2013-01-05", ZONE, {})
    assert not wish.windows
    assert not wish.verify


def test_a_run_by_hand_without_a_key_drains_and_may_verify() -> None:
    """The form's box is what `--verify` is on the command line."""
    assert wish_of("manual", None, ZONE, {"verify": True}).verify
    assert not wish_of("manual", None, ZONE, {}).windows


def test_a_key_that_names_no_day_is_told() -> None:
    """The message shows how a day is written."""
    with pytest.raises(ConfigError, match="2013-01-05"):
        wish_of("manual", "yesterday", ZONE, {})
