"""How verbs show lists and the way of long work: for people on a terminal, plainly in a pipe, as JSON when asked."""

import json
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table


def plain_table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show_list(as_json: bool, items: list[Any], columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    """One line an item: a table on a terminal, else fields between tabs without a heading."""
    if as_json:
        click.echo(json.dumps(items, ensure_ascii=False))
    elif sys.stdout.isatty():
        table = plain_table(*columns)
        for row in cells:
            table.add_row(*row)
        Console(highlight=False).print(table)
    else:
        for row in cells:
            click.echo("\t".join(row))


class Work:
    """A bar a step, on stderr; a line a step where stderr is no terminal; nothing with --json (the lines are shown)."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._tty = sys.stderr.isatty()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=Console(stderr=True), disable=as_json or not self._tty)
        self._tasks: dict[str, TaskID] = {}
        self._told: set[str] = set()

    def __enter__(self) -> "Work":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, line: dict[str, Any]) -> None:
        """A `progress` line of the API."""
        if self._as_json:
            click.echo(json.dumps(line, ensure_ascii=False))
            return
        if line.get("warning"):
            self.say(f"warning: {line['step']}: {line['done']} {line['unit']}; the site's log says which")
            return
        step, done, total, unit = line["step"], line["done"], line["total"] or None, line["unit"]
        if step not in self._tasks:
            self._tasks[step] = self._bars.add_task(step, total=total, unit=unit)
        self._bars.update(self._tasks[step], completed=done, total=total)
        if not self._tty and done == total and step not in self._told:
            self._told.add(step)
            click.echo(f"{step}: {done} {unit}", err=True)

    def say(self, text: str) -> None:
        """A line on stderr, above the bars."""
        if self._bars.disable:
            click.echo(text, err=True)
        else:
            self._bars.console.print(text, style="red", markup=False, highlight=False)


async def follow_work(lines: AsyncIterator[Any], as_json: bool) -> None:
    with Work(as_json) as work:
        async for line in lines:
            work.show(line)
