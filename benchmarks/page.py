"""Writing `docs/benchmarks.md` from the outcomes of the cases."""

from collections.abc import Mapping

from benchmarks.outcome import Measured, Outcome, Table

HEAD = """# Benchmarks

Written by `make bench`; `make bench CASES=stream,hour` measures some cases again and keeps the others. Every
contender runs as its own process and does the same work on the same data. They run in turns, round by round,
after a warm-up round. Values are medians, with minimum and maximum; memory is the largest sum over a process
and its children (PSS, at most 3 % too low).

What the design asks for:

| case | asked | found | reached |
|---|---|---|---|
"""


def page(found: Mapping[str, tuple[str, Outcome, Mapping[str, str]]]) -> str:
    """Return the page in Markdown; `found` has title, outcome and circumstances of each case."""
    claims = [
        f"| {title} | {claim.asked} | {claim.found} | {'yes' if claim.reached else '**no**'} |\n"
        for title, outcome, _ in found.values()
        for claim in outcome.claims
    ]
    return HEAD + "".join(claims) + "".join(_case(name, *one) for name, one in found.items())


def _case(name: str, title: str, outcome: Outcome, about: Mapping[str, str]) -> str:
    circumstances = "; ".join(f"{key} {value}" for key, value in about.items())
    parts = [f"\n## {title}\n\n{circumstances}. Again: `make bench CASES={name}`.\n"]
    parts += [_table(table) for table in outcome.tables]
    parts += [f"\n![{plot.title}](benchmarks/{name}-{n}.svg)\n" for n, plot in enumerate(outcome.plots)]
    parts += [f"\n{note}\n" for note in outcome.notes]
    return "".join(parts)


def _table(table: Table) -> str:
    ours = table.measured[0].spread.median
    with_memory = any(row.peak_bytes for row in table.measured)
    memory = " memory, GiB |" if with_memory else ""
    head = f"\n| {table.title} | {table.unit} | least to most | of the first |{memory}\n"
    line = f"|---|---|---|---|{'---|' if with_memory else ''}\n"
    return head + line + "".join(_row(row, ours, with_memory=with_memory) for row in table.measured)


def _row(row: Measured, ours: float, *, with_memory: bool) -> str:
    spread = row.spread
    measured = "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.2f}"
    memory = f" {measured} |" if with_memory else ""
    return (
        f"| {row.contender} | {_number(spread.median)} | {_number(spread.least)} to {_number(spread.most)} |"
        f" {spread.median / ours:.2f}x |{memory}\n"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"
