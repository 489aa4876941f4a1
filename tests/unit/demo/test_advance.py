"""The statements that play a step, as text."""

from __future__ import annotations

import pytest

from naviglio.demo.advance import advance, statement
from naviglio.demo.plan import Change, Operation
from naviglio.demo.seed import now_playing
from naviglio.errors import ConfigError

ROWS = {"time_hour": "2013-01-08T10:00Z", "carrier": "UA", "flight": 1, "dep_time": 517}


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (
            "insert",
            'insert into "flights" ("time_hour", "carrier", "flight", "dep_time") '
            'select "time_hour", "carrier", "flight", "dep_time" '
            'from jsonb_populate_recordset(null::"flights", %s) as new',
        ),
        (
            "update",
            'update "flights" as old set "dep_time" = new."dep_time" '
            'from jsonb_populate_recordset(null::"flights", %s) as new '
            'where old."time_hour" = new."time_hour" and old."carrier" = new."carrier" '
            'and old."flight" = new."flight"',
        ),
        (
            "delete",
            'delete from "flights" as old '
            'using jsonb_populate_recordset(null::"flights", %s) as new '
            'where old."time_hour" = new."time_hour" and old."carrier" = new."carrier" '
            'and old."flight" = new."flight"',
        ),
    ],
)
def test_each_operation_is_one_statement_over_all_rows(operation: Operation, text: str) -> None:
    """Rows go as one bound value; the table's own row type gives the types."""
    change = Change(table="flights", operation=operation, rows=(ROWS,))
    assert statement(change).as_string() == text


@pytest.mark.parametrize("days", [0, -1])
def test_no_days_are_refused_before_any_connection(days: int) -> None:
    """A senseless count is the caller's error."""
    with pytest.raises(ConfigError, match=f"cannot play {days} days"):
        advance("postgresql://nowhere.invalid/x", days)


def test_a_malformed_url_is_not_quoted() -> None:
    """The driver would repeat the whole URL; the message must not show the password."""
    with pytest.raises(ConfigError) as caught:
        now_playing("postgresql://app:se cret@host/operations")
    assert "cret" not in str(caught.value)
    assert caught.value.__suppress_context__
