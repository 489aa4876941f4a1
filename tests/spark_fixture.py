"""One Spark in the tests' own process, started when it is first asked for; its connector's jars."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pyspark.sql import SparkSession

from naviglio.flows.transform import Submit
from naviglio.transform import jars
from naviglio.transform.spark import CONF, DRIVER, LOOPBACK


@pytest.fixture(scope="session")
def spark_jars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the jars of the Delta connector."""
    folder = jars.folder_of(os.environ, tmp_path_factory.mktemp("spark"))
    jars.fetch(folder, os.environ)
    return folder


@pytest.fixture(scope="session")
def spark(spark_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Start a Spark that reads lake tables, as transforms see it; its zone is New York's."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.master("local[2]")
    listed = ",".join(str(path) for path in jars.found(spark_jars))
    zone = {"spark.sql.session.timeZone": "America/New_York", "spark.jars": listed}
    zone |= {"spark.local.dir": str(tmp_path_factory.mktemp("spark-local"))}
    zone |= {"spark.sql.shuffle.partitions": "2"}  # of few rows
    for name, value in {**CONF, **LOOPBACK, **zone}.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()
    logging.getLogger("py4j").setLevel(logging.ERROR)  # it speaks at exit, when nobody listens


@pytest.fixture(scope="session")
def driver() -> ModuleType:
    """Return Naviglio's driver program as a module."""
    spec = importlib.util.spec_from_file_location("naviglio_transform", DRIVER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def here(spark: SparkSession, driver: ModuleType) -> Submit:
    """Return a submitter that has the driver program work in the shared Spark."""

    def submit(name: str, zone: str, work: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        del name
        spark.conf.set("spark.sql.session.timeZone", zone)
        return {one["name"]: driver.tried(spark, one) for one in work}

    return submit
