"""What the driver program tells of an error, and whom it takes for its owner; without a Spark."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import ModuleType

import pytest
from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException, PythonException
from pyspark.sql import SparkSession

REMOTE = """
An exception was thrown from the Python worker:
Traceback (most recent call last):
  File "worker.py", line 9, in main
KeyError: 'flights'
"""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("no such carrier\nand more"), "ValueError: no such carrier"),
        (AssertionError(), "AssertionError: "),
        (PythonException(REMOTE), "KeyError: 'flights'"),
    ],
)
def test_an_error_is_told_in_one_line(driver: ModuleType, error: Exception, told: str) -> None:
    """Of a function on an executor, what it raised itself."""
    assert driver.told(error, "p.py") == told


def test_the_line_is_the_programs(driver: ModuleType) -> None:
    """The last one of its file, however deep the error came up."""
    source = "def transform(inputs):\n    return inner(inputs)\ndef inner(inputs):\n    1 / 0\n"
    with pytest.raises(ZeroDivisionError) as caught:
        driver.run(None, "/programs/p.py", source, {})
    assert driver.told(caught.value, "/programs/p.py") == (
        "line 4: ZeroDivisionError: division by zero"
    )


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (Py4JError("lost"), True),
        (OSError(errno.ENOSPC, "full"), True),
        (ConnectionResetError(), True),
        (MemoryError(), True),
        (FileNotFoundError(errno.ENOENT, "x"), False),
        (AnalysisException("no column"), False),
        (PythonException(REMOTE), False),
        (ZeroDivisionError(), False),
    ],
)
def test_what_may_pass(driver: ModuleType, error: Exception, passes: bool) -> None:  # noqa: FBT001 - a case
    """The machine's troubles do, the program's own mistakes don't."""
    assert driver.may_pass(error) is passes


def test_an_owner_is_an_ancestor(driver: ModuleType) -> None:
    """The parent is one, and its parent; a process is not its own, and a dead one is nobody's."""
    assert driver._descends_from(os.getppid())
    assert not driver._descends_from(os.getpid())
    assert not driver._descends_from(2**22 + 1)


def test_a_program_returns_a_frame(driver: ModuleType) -> None:
    """Forgetting to is told in these words."""
    with pytest.raises(TypeError, match="returned NoneType, not a DataFrame"):
        driver.run(None, "p.py", "def transform(inputs): pass", {})


def test_a_query_sees_its_own_inputs_only(driver: ModuleType, spark: SparkSession) -> None:
    """Those of another program of the same application are not there."""
    frame = spark.range(1)
    assert driver.run(spark, "p.sql", "SELECT * FROM mine;\n", {"mine": frame}).count() == 1
    with pytest.raises(AnalysisException, match="mine"):
        driver.run(spark, "q.sql", "SELECT * FROM mine", {"other": frame})


def test_rows_of_other_days_are_counted(
    driver: ModuleType, spark: SparkSession, tmp_path: Path
) -> None:
    """Also where Spark sees without reading that none is left."""
    source = "SELECT date'2013-01-01' AS day, id FROM range(3) WHERE id > 0"
    work = {"name": "t", "program": "p.sql", "source": source, "day": "day", "inputs": [],
            "days": ["2013-01-02"], "folder": str(tmp_path / "out")}  # fmt: skip
    assert driver.tried(spark, work) == {"rows": 0, "other_days": 2}
    work |= {"days": ["2013-01-01"], "folder": str(tmp_path / "other")}
    assert driver.tried(spark, work) == {"rows": 2, "other_days": 0}
    work |= {"source": f"{source} AND id > 9", "folder": str(tmp_path / "none")}
    assert driver.tried(spark, work) == {"rows": 0, "other_days": 0}
