"""Who acts on which of the server's errors, known by the server's English words."""

from __future__ import annotations

import mssql_python
import pytest
from mssql_python.exceptions import raise_exception

from naviglio.adapters.mssql.errors import (
    column_of,
    constraint_of,
    is_lost,
    number_of,
    said,
    translate,
    translated,
)
from naviglio.errors import (
    ConfigError,
    ContentionError,
    DataError,
    NaviglioError,
    RetryableError,
    TargetError,
)

# As sys.messages words them, with the SQLSTATE that the ODBC driver gives each.
CASES = [
    (1205, "40001", "Transaction (Process ID 52) was deadlocked on lock resources with another "
     "process and has been chosen as the deadlock victim. Rerun the transaction.", ContentionError),
    (1222, "42000", "Lock request time out period exceeded.", ContentionError),
    (3960, "42000", "Snapshot isolation transaction aborted due to update conflict. You cannot "
     "use snapshot isolation", ContentionError),
    (2627, "23000", "Violation of PRIMARY KEY constraint 'PK_t'. Cannot insert duplicate key in "
     "object 'dbo.t'. The duplicate key value is (secret).", DataError),
    (2601, "23000", "Cannot insert duplicate key row in object 'dbo.t' with unique index 'ux'. "
     "The duplicate key value is (secret).", DataError),
    (515, "23000", "Cannot insert the value NULL into column 'nm', table 'd.dbo.t'; column does "
     "not allow nulls. UPDATE fails.", DataError),
    (547, "23000", 'The MERGE statement conflicted with the CHECK constraint "ck_t". The conflict '
     'occurred in database "d", table "dbo.t", column \'a\'.', DataError),
    (2628, "42000", "String or binary data would be truncated in table 'd.dbo.t', column 'nm'. "
     "Truncated value: 'secret'.", DataError),
    (8152, "22001", "String or binary data would be truncated.", DataError),
    (8672, "42000", "The MERGE statement attempted to UPDATE or DELETE the same row more than "
     "once. This happens when", DataError),
    (8115, "22003", "Arithmetic overflow error converting numeric to data type numeric.",
     DataError),
    (245, "22018", "Conversion failed when converting the nvarchar value 'secret' to data type "
     "int.", DataError),
    (8169, "42000", "Conversion failed when converting from a character string to "
     "uniqueidentifier.", DataError),
    (18456, "28000", "Login failed for user 'u'.", ConfigError),
    (4060, "42000", "Cannot open database \"d\" requested by the login. The login failed.",
     ConfigError),
    (911, "08004", "Database 'd' does not exist. Make sure that the name is entered correctly.",
     ConfigError),
    (229, "42000", "The INSERT permission was denied on the object 't', database 'd', schema "
     "'dbo'.", ConfigError),
    (262, "42000", "CREATE TABLE permission denied in database 'd'.", ConfigError),
    (2760, "42000", 'The specified schema name "x" either does not exist or you do not have '
     "permission to use it.", ConfigError),
    (208, "42S02", "Invalid object name 'dbo.t'.", ConfigError),
    (207, "42S22", "Invalid column name 'nm'.", ConfigError),
    (596, "HY000", "Cannot continue the execution because the session is in the kill state.",
     RetryableError),
    (40613, "HY000", "Database 'd' on server 's' is not currently available.  Please retry the "
     "connection later.", RetryableError),
    (9002, "42000", "The transaction log for database 'd' is full due to 'LOG_BACKUP'.",
     TargetError),
]  # fmt: skip


def driver_error(state: str, text: str) -> mssql_python.Error:
    """Return what the driver raises for a SQLSTATE and the server's words."""
    with pytest.raises(mssql_python.Error) as caught:
        raise_exception(state, f"[Microsoft][ODBC Driver 18 for SQL Server][SQL Server]{text}")
    return caught.value


@pytest.mark.parametrize(("number", "state", "text", "kind"), CASES)
def test_who_acts(number: int, state: str, text: str, kind: type[NaviglioError]) -> None:
    """The class and the number are told, a row's value is not."""
    error = translate(driver_error(state, text), "target 't'", TargetError)
    assert type(error) is kind
    assert f"(error {number})" in str(error)
    assert str(error).startswith("target 't': ")
    assert "secret" not in str(error)
    assert "ODBC" not in str(error)


def test_what_is_blamed() -> None:
    """Column and constraint come from the server's words."""
    errors = {number: driver_error(state, text) for number, state, text, _ in CASES}
    assert column_of(errors[515]) == column_of(errors[2628]) == "nm"
    assert [constraint_of(errors[n]) for n in (2627, 2601, 547)] == ["PK_t", "ux", "ck_t"]
    assert column_of(errors[1205]) is constraint_of(errors[1205]) is None
    assert "'ck_t'" in said(errors[547])


@pytest.mark.parametrize(
    ("state", "text", "kind"),
    [
        ("08S01", "TCP Provider: Error code 0x68", RetryableError),
        ("08001", "Login timeout expired", RetryableError),
        ("HYT00", "Une erreur", RetryableError),
        ("08001", "SSL Provider: [error:0A000086:SSL routines::certificate verify failed]",
         ConfigError),
        ("28000", "Échec de l'ouverture de session de l'utilisateur", ConfigError),
        ("22018", "Échec de la conversion de la valeur 'secret'", DataError),
        ("42000", "Incorrect syntax near 'x'.", TargetError),
    ],
)  # fmt: skip
def test_what_has_no_known_words(state: str, text: str, kind: type[NaviglioError]) -> None:
    """The driver's words for the SQLSTATE decide; values still stay out."""
    error = translate(driver_error(state, text), "w", TargetError)
    assert type(error) is kind
    assert "secret" not in str(error)


def test_a_lost_session_is_told_from_a_lost_race() -> None:
    """After a deadlock the session lives on."""
    assert is_lost(driver_error("08S01", "Communication link failure"))
    assert is_lost(driver_error("HY000", "the session is in the kill state."))
    assert not is_lost(driver_error("40001", CASES[0][2]))
    assert not is_lost(driver_error("23000", CASES[3][2]))


def test_the_bulk_copy_speaks_otherwise() -> None:
    """Its core raises plain errors; a number that it tells is found."""
    refused = RuntimeError("Failed to connect to SQL Server: IO error: Connection refused")
    assert type(translate(refused, "w", TargetError)) is RetryableError
    assert number_of(RuntimeError("SQL Server error 4815: received an invalid column")) == 4815


def test_the_original_is_not_chained() -> None:
    """Its text may hold values."""
    with pytest.raises(DataError) as caught, translated("w", TargetError):
        raise driver_error("23000", CASES[3][2])
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
