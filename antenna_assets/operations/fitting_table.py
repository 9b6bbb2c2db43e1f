"""A table that never cuts a number: where its columns do not fit beside each other, its rows are shown as lists."""

from collections.abc import Iterator

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

_UNBOUNDED = 10_000


class FittingTable(Table):
    """A Rich table whose cells break between words alone; too narrow a console gets one line per cell."""

    def __init__(self, *columns: Column | str, title: str | None = None) -> None:
        super().__init__(*columns, title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
        self.caption_justify = "left"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table, or its rows one below the other."""
        needed = Measurement.get(console, options.update_width(_UNBOUNDED), self).minimum
        if needed <= options.max_width:
            yield from super().__rich_console__(console, options)
        else:
            yield from self._lists(console)

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
    """Columns of numbers, of which none is broken."""
    return [Column(name, justify="right", no_wrap=True, overflow="ignore") for name in names]
