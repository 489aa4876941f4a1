"""The Delta connector for Spark: fetched once into a folder, by pinned checksum."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path

from naviglio.errors import ConfigError, RetryableError

# All that Spark's own jars lack to read Delta tables, and its readers load.
JARS = {
    "io/delta/delta-spark_4.2_2.13/4.4.0/delta-spark_4.2_2.13-4.4.0.jar": (
        "27d4fd8b1f879535c573ed1c718177d6a27f24d3e626ba02e216369725721ead"
    ),
    "io/delta/delta-storage/4.4.0/delta-storage-4.4.0.jar": (
        "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc"
    ),
}
CENTRAL = "https://repo1.maven.org/maven2"
_TIMEOUT_S = 60


def folder_of(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder of the jars: NAVIGLIO_SPARK_JARS, or one below the home."""
    named = environ.get("NAVIGLIO_SPARK_JARS")
    return Path(named).expanduser().absolute() if named else home / "spark" / "jars"


def found(folder: Path) -> list[Path]:
    """Return the jars; ConfigError where one is missing or isn't what it should be."""
    paths = {folder / Path(jar).name: checksum for jar, checksum in JARS.items()}
    wrong = [path.name for path, checksum in paths.items() if _sha256(path) != checksum]
    if wrong:
        raise ConfigError(
            f"Spark's Delta connector is not in {folder} ({', '.join(wrong)} missing or damaged). "
            "Run `naviglio spark jars` once; it needs the network, runs after it don't."
        )
    return list(paths)


def fetch(folder: Path, environ: Mapping[str, str]) -> list[Path]:
    """Download what is missing, from Maven Central or the mirror NAVIGLIO_MAVEN; return the jars.

    Raises RetryableError while the server is away, ConfigError for a file of another content.
    """
    base = environ.get("NAVIGLIO_MAVEN") or CENTRAL
    folder.mkdir(parents=True, exist_ok=True)
    for jar, checksum in JARS.items():
        path = folder / Path(jar).name
        if _sha256(path) != checksum:
            _download(f"{base.rstrip('/')}/{jar}", path, checksum)
    return found(folder)


def _download(url: str, path: Path, checksum: str) -> None:
    if not url.startswith(("https://", "http://")):
        raise ConfigError("NAVIGLIO_MAVEN is no http(s) address of a Maven repository. Correct it.")
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - http(s) only
            hidden.write_bytes(answer.read())
        if _sha256(hidden) != checksum:
            raise ConfigError(f"{path.name} was fetched, but is not the file that is pinned.")
        hidden.replace(path)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise RetryableError(
            f"{path.name} can't be fetched ({type(error).__name__}). Check the network, or name a "
            "mirror of Maven Central by NAVIGLIO_MAVEN; then run `naviglio spark jars` again."
        ) from error
    finally:
        hidden.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
