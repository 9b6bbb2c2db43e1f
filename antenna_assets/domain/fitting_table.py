"""A table that never cuts a number: where its columns do not fit beside each other, its rows are shown as
lists."""

from collections.abc import Iterator

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

_UNBOUNDED = 10_000


class FittingTable(Table):
    """A Rich table that breaks cells between words only; a console too narrow for that gets a line for each
    cell."""

    def __init__(self, *columns: Column | str, title: str | None = None) -> None:
        super().__init__(*columns, title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
        self.caption_justify = "left"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, or its rows one below the other."""
        # Rich itself narrows the widest columns first, down into their words.
        ranges = [self._range(console, column) for column in self.columns]
        for column in self.columns:
            column.width = 1
        borders = Measurement.get(console, options.update_width(_UNBOUNDED), self).maximum - len(ranges)
        left = options.max_width - borders - sum(each.minimum for each in ranges)
        if left < 0:
            yield from self._lists(console)
            return
        # Columns that lack little get it first; the longest texts share what is left.
        columns = zip(self.columns, ranges, strict=True)
        for column, each in sorted(columns, key=lambda pair: pair[1].maximum - pair[1].minimum):
            column.width = min(each.maximum, each.minimum + left)
            left -= column.width - each.minimum
        yield from super().__rich_console__(console, options)

    def _range(self, console: Console, column: Column) -> Measurement:
        """The width of the column's longest word, and of its longest cell."""
        wide = console.options.update_width(_UNBOUNDED)
        cells = [Measurement.get(console, wide, cell or "") for cell in (column.header, *column.cells)]
        return Measurement(max(cell.minimum for cell in cells), max(cell.maximum for cell in cells))

    def _lists(self, console: Console) -> Iterator[RenderableType]:
        names = [str(column.header) for column in self.columns]
        widest = max(map(len, names), default=0)
        if self.title is not None:
            yield Text.from_markup(str(self.title), style="italic")
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            yield ""
            for name, cell in zip(names, cells, strict=True):
                yield Text.assemble(f"{name:<{widest}}  ", console.render_str(str(cell)))
        if self.caption is not None:
            yield Text.from_markup(f"\n{self.caption}", style="dim italic")
        yield ""


def number_columns(*names: str) -> list[Column]:
    """Columns that are aligned to the right."""
    return [Column(name, justify="right") for name in names]
