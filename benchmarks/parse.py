"""`python -m benchmarks.parse [PIPELINES]`: how long Airflow's parser takes for many pipelines.

Milliseconds of CPU and of the clock a pipeline, of three tables in two groups with a schedule; the
imports, which a process does once, are not in them. Nothing is written.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROUNDS = 5
_FILE = """source: a
target: b
target_schema: s{0}
schedule: {{cron: '0 6 * * *'}}
tables:
  t1: {{capture: diff}}
  t2: {{capture: {{where: m}}, deletes: sweep, event_time: at}}
  t3: {{capture: diff}}
groups: {{g: [t1, t3]}}
"""


def main(pipelines: int) -> None:
    """Generate the files, parse them as the DAG processor does, and print the best round."""
    with tempfile.TemporaryDirectory(prefix="naviglio-parse-") as folder:
        for number in range(pipelines):
            Path(folder, f"p{number}.yaml").write_text(_FILE.format(number))
        os.environ |= {
            "AIRFLOW_HOME": f"{folder}/airflow", "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR", "NAVIGLIO_PIPELINES": folder,
        }  # fmt: skip
        sys.path[:0] = [str(ROOT / "include"), str(ROOT / "plugins")]
        taken = sorted(_parsed(pipelines) for _ in range(ROUNDS))
    cpu, clock = (1000 * seconds / pipelines for seconds in taken[0])
    print(f"{pipelines} pipelines: {cpu:.1f} ms of CPU, {clock:.1f} ms each")


def _parsed(pipelines: int) -> tuple[float, float]:
    from airflow.dag_processing.dagbag import DagBag

    import naviglio_airflow.dags  # noqa: F401 - imported once by a process

    cpu, clock = time.process_time(), time.perf_counter()
    found = DagBag(str(ROOT / "dags"))
    taken = time.process_time() - cpu, time.perf_counter() - clock
    assert len(found.dags) == pipelines, found.import_errors
    return taken


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
