"""How fast a whole site is: `python -m bench [FIGURE…]` starts one of its own on free ports, with every write on disk as
in life, measures it from outside, prints a table and appends to bench/ledger.csv."""

import csv
import datetime
import os
import tempfile
from pathlib import Path

import click
import uvloop
from rich.console import Console
from rich.table import Table

from bench import machine
from bench.figures import FIGURES, Value
from tests.faults import site as sites

LEDGER = Path(__file__).with_name("ledger.csv")
COLUMNS = ("date", "commit", "machine", "name", "value", "unit", "notes")


@click.command()
@click.argument("figures", nargs=-1, type=click.Choice(list(FIGURES)))
@click.option("--ledger/--no-ledger", default=True, help="append to bench/ledger.csv")
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), help="on this disk, not in /tmp")
def main(figures: tuple[str, ...], ledger: bool, folder: Path | None) -> None:
    """Measures a whole site of its own."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="angarium-bench-") as home:
        uvloop.run(measured(Path(home) / "site", figures or tuple(FIGURES), ledger))


async def measured(home: Path, names: tuple[str, ...], ledger: bool) -> None:
    console = Console()
    table = Table("figure", "value", "unit", "goal", "load", "notes", title=f"{machine.commit()} on {machine.name()}")
    site = sites.made(home)
    await site.start()
    try:
        for name in names:
            console.print(f"{name} …", style="dim")
            for value in await FIGURES[name](site):
                load = os.getloadavg()[0]
                table.add_row(value.name, f"{value.value:,.2f}", value.unit, value.goal, f"{load:.1f}", value.notes)
                if ledger:
                    keep(value, load)
    finally:
        await site.stop()
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
