"""How fast a whole site is: `python -m bench [FIGURE…]` starts one of its own on free ports, with every write on disk as
in life, measures it from outside, prints a table and appends to bench/ledger.csv."""

import csv
import datetime
import logging
import os
import tempfile
from collections.abc import Awaitable
from pathlib import Path

import click
import structlog
import uvloop
from rich.console import Console
from rich.table import Table

from bench import giant, idling, importing, machine, mailing, searching, sites, syncing
from bench.figures import FIGURES as OF_ONE
from bench.figures import Value
from tests.faults import site as alone

FIGURES = {
    **OF_ONE,
    **idling.FIGURES,
    **mailing.FIGURES,
    **syncing.FIGURES,
    **giant.FIGURES,
    "search": searching.search,
    "import": importing.moving_in,
}
LEDGER = Path(__file__).with_name("ledger.csv")
COLUMNS = ("date", "commit", "machine", "name", "value", "unit", "notes")


@click.command()
@click.argument("figures", nargs=-1, type=click.Choice([*FIGURES, *sites.FIGURES]))
@click.option("--ledger/--no-ledger", default=True, help="append to bench/ledger.csv")
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), help="on this disk, not in /tmp")
def main(figures: tuple[str, ...], ledger: bool, folder: Path | None) -> None:
    """Measures sites of its own; all figures if none is named."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="angarium-bench-") as home:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
        uvloop.run(measured(Path(home), figures or (*FIGURES, *sites.FIGURES), ledger))


async def measured(home: Path, names: tuple[str, ...], ledger: bool) -> None:
    console = Console()
    table = Table("figure", "value", "unit", "goal", "load", "notes", title=f"{machine.commit()} on {machine.name()}")

    async def kept(name: str, values: Awaitable[list[Value]]) -> None:
        console.print(f"{name} …", style="dim")
        for value in await values:
            load = os.getloadavg()[0]
            table.add_row(value.name, f"{value.value:,.2f}", value.unit, value.goal, f"{load:.1f}", value.notes)
            if ledger:
                keep(value, load)

    try:
        if of_one := [name for name in names if name in FIGURES]:
            site = alone.made(home / "site")
            await site.start()
            try:
                for name in of_one:
                    await kept(name, FIGURES[name](site))
            finally:
                await site.stop()
        for name in names:
            if name in sites.FIGURES:
                await kept(name, sites.FIGURES[name](home / name))
    finally:
        console.print(table)


def keep(value: Value, load: float) -> None:
    fresh = not LEDGER.exists()
    with LEDGER.open("a", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        if fresh:
            rows.writerow(COLUMNS)
        notes = "; ".join(filter(None, (f"load {load:.1f}", value.notes)))
        today = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%MZ")
        rows.writerow(
            (today, machine.commit(), machine.name(), value.name.strip(), f"{value.value:.2f}", value.unit, notes)
        )


if __name__ == "__main__":
    main()
