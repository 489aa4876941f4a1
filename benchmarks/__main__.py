"""`python -m benchmarks [SUITE ...]`: measure, and print a table in Markdown."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

from benchmarks.ground import open_ground
from benchmarks.measure import HEADER, Result, show
from benchmarks.suites import SUITES


def main(arguments: list[str] | None = None) -> None:
    """Run the suites that are named, all when none is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join([*SUITES, "all"]))
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="of TPC-H (1)")
    parser.add_argument("--home", type=Path, help="keep the server and its data here")
    said = parser.parse_args(arguments)
    names = [*SUITES] if {*said.suites} <= {"all"} else said.suites
    if unknown := {*names} - {*SUITES}:
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}, all")
    results: list[Result] = []
    try:
        with open_ground(said.scale, said.home) as ground:
            for name in names:
                show(f"{name}: {(SUITES[name].__doc__ or '').splitlines()[0]}")
                results += SUITES[name](ground, said.rounds)
    finally:  # what was measured before a failure is shown
        show(
            f"\n{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()},"
            f" TPC-H scale {said.scale:g}, {said.rounds} rounds\n\n{HEADER}"
        )
        for result in results:
            show(result.line())


if __name__ == "__main__":
    main()
