"""How values look to people: tables, numbers, moments, spans of time, plural forms."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_SPANS = ((86_400, "d"), (3_600, "h"), (60, "min"))
_SHORT_S = 10
_GAP = 2  # spaces between columns
_KILO, _UNITS = 1000, ("kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class _Listing:
    """Rows as a table; where the terminal is too narrow, its columns go on below."""

    names: list[str]
    rows: Sequence[Mapping[str, object]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for number, block in enumerate(self._blocks(options.max_width)):
            if number:
                yield ""
            yield self._table(block)

    def _blocks(self, width: int) -> list[list[str]]:
        """Share the columns out over tables that fit, each beginning with the first column."""
        first, *others = self.names
        blocks, used = [[first]], self._width(first)
        for name in others:
            if used + self._width(name) > width and len(blocks[-1]) > 1:
                blocks.append([first])
                used = self._width(first)
            blocks[-1].append(name)
            used += self._width(name)
        return blocks

    def _width(self, name: str) -> int:
        cells = (cell_len(cell(row[name])) for row in self.rows)
        return max(cell_len(name), *cells) + _GAP

    def _table(self, names: list[str]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        for name in names:
            numbers = all(isinstance(row[name], int | float | None) for row in self.rows)
            table.add_column(name, justify="right" if numbers else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell(row[name])) for name in names))
        return table


def listing(rows: Sequence[Mapping[str, object]], optional: Collection[str] = ()) -> _Listing:
    """Return rows as a table; `optional` columns are left out where all their cells are empty."""
    names = [
        name
        for name in rows[0]
        if name not in optional or any(row[name] not in (None, "", ()) for row in rows)
    ]
    return _Listing(names, rows)


def cell(value: object) -> str:
    """Return a value as a table's cell."""
    match value:
        case None | "" | ():
            said = "-"
        case int():
            said = f"{value:,}"
        case float():
            said = f"{value:,.2f}"
        case datetime():
            said = moment(value)
        case tuple():
            said = ", ".join(map(str, value))
        case _:
            said = str(value)
    return said


def moment(value: datetime | str | None) -> str:
    """Return a moment in UTC, to the second; a position that is no moment as it is."""
    if isinstance(value, str):
        if value.lstrip("-").isdigit():
            return value
        value = datetime.fromisoformat(value)
    return "-" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float | None) -> str:
    """Return a span of time by its two largest units: `3 d 4 h`, `2 min 5 s`, `0.4 s`."""
    if seconds is None:
        return "-"
    if seconds < _SHORT_S:
        return f"{max(seconds, 0):.1f} s"
    left, said = round(seconds), []
    for size, unit in (*_SPANS, (1, "s")):
        count, left = divmod(left, size)
        if count:
            said.append(f"{count} {unit}")
    return " ".join(said[:2])


def size(count: int) -> str:
    """Return a number of bytes by its unit."""
    if count < _KILO:
        return f"{count} B"
    power = min(int(math.log(count, _KILO)), len(_UNITS))
    return f"{count / _KILO**power:.1f} {_UNITS[power - 1]}"


def plural(count: int, one: str, many: str = "") -> str:
    """Return `1 row`, `2 rows`, `1,234 rows`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"
