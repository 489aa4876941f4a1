"""The same changes by `dlt`, in its own environment: an upsert of a Parquet file.

Runs under another interpreter, so it imports nothing of this project.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for name in ("RUNTIME__DLTHUB_TELEMETRY", "RUNTIME__REQUEST_TELEMETRY"):
    os.environ[name] = "false"
os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"

import dlt  # noqa: E402 - it reads the settings above as it is imported
import pyarrow as pa  # noqa: E402 - behind dlt, as sorted
import pyarrow.parquet as pq  # noqa: E402 - as above


def main() -> None:
    """Upsert what stdin says and print what it took."""
    said = json.load(sys.stdin)
    changes = pq.ParquetFile(said["file"])
    names = [name for name in changes.schema_arrow.names if not name.startswith("_")]

    @dlt.resource(
        name="lineitem",
        write_disposition={"disposition": "merge", "strategy": "upsert"},
        primary_key=["l_orderkey", "l_linenumber"],
    )
    def lineitem() -> Iterator[pa.Table]:
        for batch in changes.iter_batches(65_536, columns=names):
            yield pa.Table.from_batches([batch])

    with tempfile.TemporaryDirectory(prefix="naviglio-dlt-") as folder:
        begun = time.perf_counter()
        pipeline = dlt.pipeline(
            pipeline_name="bench",
            pipelines_dir=folder,
            # dlt wants a host; the socket's folder, which the URL names as well, comes before it.
            destination=dlt.destinations.postgres(said["url"].replace("@/", "@localhost/")),
            dataset_name="bench",
        )
        pipeline.run(lineitem(), loader_file_format=said["format"])
        seconds = time.perf_counter() - begun
        told: dict[str, Any] = {"rows": changes.metadata.num_rows, "dlt": dlt.__version__}
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    rss_mb = int(status["VmHWM"].split()[0]) / 1024
    print(json.dumps({"seconds": seconds, "rss_mb": rss_mb, "told": told}))


if __name__ == "__main__":
    main()
