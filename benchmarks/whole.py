"""A whole process from its start to its end: `python -m benchmarks.whole COMMAND...`."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time


def main() -> None:
    """Run the command and print what it took."""
    begun = time.perf_counter()
    subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - begun
    kilobytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps({"seconds": seconds, "rss_mb": kilobytes / 1024, "told": {}}))


if __name__ == "__main__":
    main()
