"""SQL Server for hand-written tasks: an ordinary connection, by the driver that loads use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.sdk.exceptions import AirflowException

from naviglio.adapters.mssql.errors import translated
from naviglio.adapters.mssql.session import address, connect
from naviglio.errors import SourceError, TargetError
from naviglio_airflow.connections import url_of
from naviglio_airflow.operators import told_to_airflow

if TYPE_CHECKING:
    import mssql_python


class MssqlHook(DbApiHook):
    """Reads and writes SQL Server over mssql-python.

    It takes a connection of type `mssql` as it is (port 1433 where none is said, TLS unless the
    extra says otherwise), and of its own type `mssqlpython`, which gives the UI's test button
    this hook; `MsSqlHook` of Airflow's provider stays what it is. Parameters are marked by `?`.
    Errors tell the server's number and no values; Airflow retries those that trying again may mend.

    Args:
        args: What every hook takes.
        reads: Whether the database is a source: its owner then acts on what only the server can
            mend.
        kwargs: What every hook takes; `mssql_conn_id` names the connection.
    """

    conn_name_attr = "mssql_conn_id"
    default_conn_name = "mssql_default"
    conn_type = "mssqlpython"
    hook_name = "SQL Server (Naviglio)"
    supports_autocommit = True
    _placeholder = "?"

    def __init__(self, *args: Any, reads: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **{"escape_word_format": "[{}]", **kwargs})
        self._owner = SourceError if reads else TargetError

    @property
    def dialect_name(self) -> str:
        """The dialect by which rows are inserted and replaced."""
        return "mssql"

    def get_conn(self) -> mssql_python.Connection:
        """Open a session with its settings pinned, in autocommit."""
        with told_to_airflow():
            return connect(url_of(self.connection), owner=self._owner)

    def test_connection(self) -> tuple[bool, str]:  # type: ignore[override]  # it is untyped there
        """Ask the server who one is there; tell why where it doesn't answer."""
        try:
            user, database = self.get_first("SELECT USER_NAME(), DB_NAME()")
        except AirflowException as error:
            return False, str(error)
        return True, f"SQL Server answers {user!r} in database {database!r}."

    def get_openlineage_database_dialect(self, connection: object) -> str:
        """Return the dialect by which lineage is read."""
        del connection
        return "mssql"

    @contextmanager
    def _create_autocommit_connection(
        self,
        autocommit: bool = False,  # noqa: FBT001, FBT002 - as the class above has it
    ) -> Iterator[mssql_python.Connection]:
        """Open a session for some statements; what the server says of them is translated."""
        with (
            told_to_airflow(),
            translated(address(url_of(self.connection)).where, self._owner),
            super()._create_autocommit_connection(autocommit) as connection,
        ):
            yield connection

    def _make_common_data_structure(self, result: Any) -> Any:
        """Return rows as plain tuples, which can leave the task."""
        if isinstance(result, list):
            return [tuple(row) for row in result]
        return tuple(result)
