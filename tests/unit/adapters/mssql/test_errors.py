"""Who acts on which of the server's errors, known by the server's English words."""

from __future__ import annotations

import re
from pathlib import Path

import mssql_python
import pytest
from mssql_python import ddbc_bindings
from mssql_python.exceptions import raise_exception

from naviglio.adapters.mssql.errors import (
    _KNOWN,
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
    (3957, "42000", "Snapshot isolation transaction failed in database 'd' because the database "
     "did not allow snapshot isolation when the current transaction started. It may help to allow "
     "the database to allow snapshot isolation and then restart the transaction.", RetryableError),
    (3958, "42000", "Transaction aborted when accessing versioned row in table 'dbo.t' in database "
     "'d'. Requested versioned row was not found. Your tempdb is probably out of space.",
     RetryableError),
    (3961, "42000", "Snapshot isolation transaction failed in database 'd' because the object "
     "accessed by the statement has been modified by a DDL statement in another concurrent "
     "transaction since the start of this transaction.", RetryableError),
    (3966, "42000", "Transaction is rolled back when accessing version store. It was earlier "
     "marked as victim when the version store was shrunk due to insufficient space in tempdb.",
     RetryableError),
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
    (1105, "42000", "Could not allocate space for object 'dbo.t' in database 'd' because the "
     "'PRIMARY' filegroup is full.", TargetError),
    (701, "42000", "There is insufficient system memory in resource pool 'default' to run this "
     "query.", RetryableError),
    (976, "42000", "The target database, 'd', is participating in an availability group and is "
     "currently not accessible for queries.", RetryableError),
    (4221, "42000", "Login to read-secondary failed due to long wait on "
     "'HADR_DATABASE_WAIT_FOR_TRANSITION_TO_VERSIONING'.", RetryableError),
    (6005, "HY000", "SHUTDOWN is in progress.", RetryableError),
    (10928, "HY000", "Resource ID : 1. The request limit for the database is 30 and has been "
     "reached.", RetryableError),
    (17142, "42000", "SQL Server service has been paused. No new connections will be allowed.",
     RetryableError),
    (18401, "42000", "Login failed for user 'u'. Reason: Server is in script upgrade mode. Only "
     "administrator can connect at this time.", RetryableError),
    (40501, "HY000", "The service is currently busy. Retry the request after 10 seconds.",
     RetryableError),
    (18452, "28000", "Login failed. The login is from an untrusted domain and cannot be used with "
     "Integrated authentication.", ConfigError),
    (916, "08004", 'The server principal "u" is not able to access the database "d" under the '
     "current security context.", ConfigError),
    (230, "42000", "The UPDATE permission was denied on the column 'a' of the object 't', database "
     "'d', schema 'dbo'.", ConfigError),
    (297, "42000", "The user does not have permission to perform this action.", ConfigError),
    (300, "42000", "VIEW SERVER STATE permission was denied on object 'server', database 'master'.",
     ConfigError),
    (371, "42000", "The SELECT permission was denied on the schema 'dbo'.", ConfigError),
    (1088, "42S02", 'Cannot find the object "dbo.t" because it does not exist or you do not have '
     "permissions.", ConfigError),
    (15151, "42000", "Cannot find the user 'u', because it does not exist or you do not have "
     "permission.", ConfigError),
    (15517, "42000", 'Cannot execute as the database principal because the principal "u" does not '
     "exist, this type of principal cannot be impersonated, or you do not have permission.",
     ConfigError),
    (3906, "42000", 'Failed to update database "d" because the database is read-only.',
     ConfigError),
    (3952, "42000", "Snapshot isolation transaction failed accessing database 'd' because snapshot "
     "isolation is not allowed in this database.", ConfigError),
    (220, "22003", "Arithmetic overflow error for data type tinyint, value = secret.", DataError),
    (241, "22007", "Conversion failed when converting date and/or time from character string.",
     DataError),
    (242, "22007", "The conversion of a nvarchar data type to a datetime data type resulted in an "
     "out-of-range value.", DataError),
    (1946, "42000", "Operation failed. The index entry of length 1800 bytes for the index 'pk' "
     "exceeds the maximum length of 900 bytes for clustered indexes.", DataError),
    (8114, "42000", "Error converting data type nvarchar to numeric.", DataError),
    (8023, "42000", "The incoming tabular data stream (TDS) remote procedure call (RPC) protocol "
     'stream is incorrect. Parameter 3 ("@p"): The supplied value is not a valid instance of data '
     "type float. Check the source data for invalid values.", DataError),
    (9400, "42000", "XML parsing: line 1, character 5, unexpected end of input", DataError),
    (13609, "42000", "JSON text is not properly formatted. Unexpected character 's' is found at "
     "position 0.", DataError),
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


def documented() -> dict[int, str]:
    """Return the class of each number that the page of SQL Server lists."""
    page = (Path(__file__).parents[4] / "docs" / "mssql.md").read_text("utf-8")
    rows = re.findall(r"^\| (tried again by itself|`\w+Error`) \| (.*) \|$", page, re.MULTILINE)
    return {
        int(number): "ContentionError" if kind.startswith("tried") else kind.strip("`")
        for kind, told in rows
        for number in re.findall(r"\b\d{3,5}\b", told)
    }


def test_the_page_lists_what_is_known() -> None:
    """Every number of the page has a case here, with its class; every known number is on the page.

    The class of 1105 and 9002 is the server's owner: of the target here, of a source likewise.
    """
    cases = {number: kind.__name__ for number, _, _, kind in CASES}
    assert documented() == cases
    assert {known.number for known in _KNOWN if known.number > 0} == set(cases)


@pytest.mark.parametrize(
    ("states", "kind"),
    [
        (("40001",), ContentionError),
        (("08001", "08003", "08004", "08007", "08S01", "40003", "HYT00", "HYT01", "HY008"),
         RetryableError),
        (("28000", "3D000", "3F000", "42S02", "42S22"), ConfigError),
        (("22001", "22003", "22007", "22008", "22018", "23000", "44000"), DataError),
        (("42000", "HY000", "25000"), TargetError),
    ],
)  # fmt: skip
def test_the_words_for_states_are_still_the_drivers(
    states: tuple[str, ...], kind: type[NaviglioError]
) -> None:
    """Where the server's words are unknown: the driver has the words for each SQLSTATE."""
    for state in states:
        error = driver_error(state, "Quelque chose d'inconnu")
        assert type(translate(error, "w", TargetError)) is kind, state


def test_the_driver_tells_no_number_yet() -> None:
    """When it does, they are better than words: read them in errors.py, and mend the page."""
    error = driver_error("23000", CASES[3][2])
    assert {*vars(error)} == {"driver_error", "ddbc_error", "message"}
    told = {name for name in dir(vars(ddbc_bindings)["ErrorInfo"]) if not name.startswith("_")}
    assert told == {"sqlState", "ddbcErrorMsg"}


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
        ("08001", "TCP Provider: Error code 0x2749", RetryableError),
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
    (text,) = (text for number, _, text, _ in CASES if number == 2627)
    with pytest.raises(DataError) as caught, translated("w", TargetError):
        raise driver_error("23000", text)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
