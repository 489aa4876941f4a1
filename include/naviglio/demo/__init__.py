"""The operational system of the demo: New York's flights of 2013, played day by day.

It stands for the application whose database Naviglio reads: it writes rows as an airline's
operations centre would and knows nothing of captures. `seed` loads the past, `advance` plays the
next days, `now_playing` tells how far the simulated calendar is.
"""

from naviglio.demo.advance import DayReport, advance
from naviglio.demo.seed import SeedReport, now_playing, seed

__all__ = ["DayReport", "SeedReport", "advance", "now_playing", "seed"]
