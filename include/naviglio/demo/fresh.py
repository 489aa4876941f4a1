"""Clear what an earlier demo loaded, so that the next one begins with an empty warehouse."""

from __future__ import annotations

import psycopg
from psycopg import sql

from naviglio.errors import TargetError


def clear_warehouse(url: str, pipeline: str, schemas: set[str]) -> None:
    """Drop the demo's own target schemas and its rows of the ledger."""
    try:
        with psycopg.connect(url, application_name="naviglio-demo") as connection:
            for schema in sorted(schemas):
                drop = sql.SQL("drop schema if exists {} cascade")
                connection.execute(drop.format(sql.Identifier(schema)))
            if connection.execute("select to_regclass('naviglio.ledger')").fetchone() != (None,):
                connection.execute("delete from naviglio.ledger where pipeline = %s", [pipeline])
    except psycopg.Error as error:
        raise TargetError(
            f"demo: the warehouse refused: {str(error).strip()}. Is it running (`naviglio start`)?"
        ) from error
