"""What `angarium import` shows: a bar an account on a terminal, lines in a pipe, JSON when asked."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import ProgressColumn as Column
from rich.text import Text

from node.importing.bringing import Outcome
from node.importing.model import Folder


class RateColumn(Column):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f}/s")


class Shown:
    """See node.importing.bringing.Told. Results go to standard output, what is refused and the bars to stderr."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("messages"), RateColumn(),
            TimeRemainingColumn(),
        )  # fmt: skip
        self._bars = Progress(*columns, console=Console(stderr=True), disable=as_json or not sys.stderr.isatty())
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}

    def __enter__(self) -> "Shown":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def folder(self, address: str, folder: Folder, mailbox: str, count: int) -> None:
        self._totals[address] = self._totals.get(address, 0) + count
        if address not in self._tasks:
            self._tasks[address] = self._bars.add_task(address, total=0)
        self._bars.update(self._tasks[address], total=self._totals[address])
        self._line(
            {"kind": "folder", "address": address, "source": folder.where, "mailbox": mailbox, "messages": count}
        )

    def went(self, address: str, messages: int, size: int) -> None:
        self._bars.advance(self._tasks[address], messages)
        self._line({"kind": "progress", "address": address, "messages": messages, "bytes": size})

    def refused(self, address: str, where: str, why: str) -> None:
        self._line({"kind": "refused", "address": address, "where": where, "why": why})
        self.say(": ".join(part for part in (address, where, why) if part))

    def remarked(self, address: str, text: str) -> None:
        self._line({"kind": "remark", "address": address, "text": text})
        self.say(f"{address}: {text}")

    def plan(self, address: str, folders: Sequence[tuple[str, str, int]]) -> None:
        for where, mailbox, count in folders:
            self._line({"kind": "planned", "address": address, "source": where, "mailbox": mailbox, "messages": count})
            if not self._as_json:
                click.echo(f"{address}\t{mailbox}\t{count}\t{where}")

    def account(self, address: str, outcome: Outcome) -> None:
        self._line({"kind": "account", "address": address, **outcome._asdict()})
        if not self._as_json:
            self._out(f"{address}: {_sentence(outcome)}")

    def total(self, outcome: Outcome, accounts: int, *, only_plan: bool) -> None:
        if only_plan:
            self._line({"kind": "finished", "messages": outcome.imported, "failed": outcome.failed})
        else:
            self._line({"kind": "finished", "accounts": accounts, **outcome._asdict()})
        if not self._as_json and only_plan:
            click.echo(f"{outcome.imported} messages; nothing was imported")
        elif not self._as_json and accounts > 1:
            click.echo(f"{accounts} accounts: {_sentence(outcome)}")

    def say(self, text: str) -> None:
        """A line on stderr, above the bars. Not with --json, where a line of its own says it."""
        if self._as_json:
            return
        if self._bars.disable:
            click.echo(text, err=True)
        else:
            self._bars.console.print(text, style="red", markup=False, highlight=False)

    def _out(self, text: str) -> None:
        if self._bars.disable:
            click.echo(text)
        else:
            self._bars.console.print(text, markup=False, highlight=False)

    def _line(self, line: dict[str, Any]) -> None:
        if self._as_json:
            click.echo(json.dumps(line, ensure_ascii=False))


def _sentence(outcome: Outcome) -> str:
    words = [f"{outcome.imported} imported ({outcome.size / 1e6:.1f} MB)"]
    words += [f"{outcome.found} were there already"] if outcome.found else []
    words += [f"{outcome.refused} refused"] if outcome.refused else []
    words += [f"{outcome.failed} could not be read to the end"] if outcome.failed else []
    return ", ".join(words)
