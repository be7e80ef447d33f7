"""`angarium undelete`: mail that people expunged, as long as their domain keeps it."""

import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from cluster.domain.mailbox import ranges
from node.cli.client import Api, path, run
from node.cli.days import midnight
from node.cli.output import Work, show_list
from node.cli.shape import answer, json_option

PLACES_PER_REQUEST_MAX = 1000
MAILBOX_HELP = "Of this mailbox only: by the name that it has, or had when it was deleted."


@click.group()
def command() -> None:
    """Mail that people expunged, and its restoring."""


def _which(wanted: Any) -> Any:
    for option in (
        click.option("--subject", default="", help="Those with this in the subject."),
        click.option("--since", default=None, metavar="DATE", help="Expunged on this day (UTC, YYYY-MM-DD) or later."),
        click.option("--mailbox", default="", help=MAILBOX_HELP),
    ):
        wanted = option(wanted)
    return wanted


@command.command("list")
@click.argument("address")
@_which
@json_option
@click.pass_obj
def show_all(directory: Path, address: str, mailbox: str, since: str | None, subject: str, as_json: bool) -> None:
    """What can be restored, by mailbox and in the order in which it went."""
    items = run(directory, lambda api: found(api, address, mailbox, since, subject))
    cells = [(one["name"], str(one["place"]), _day(one["expunged_at"]), one["sender"], one["subject"]) for one in items]
    show_list(as_json, items, ("Mailbox", "No.", "Expunged", "From", "Subject"), cells)


@command.command()
@click.argument("address")
@_which
@click.option("--into", default="", help="Into this mailbox, made if it is not there; else each where it was.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def restore(directory: Path, /, address: str, **how: Any) -> None:
    """Bring back what is named: with its date, flags and keywords, under new UIDs. What is back already does not come twice."""
    items = run(directory, lambda api: found(api, address, how["mailbox"], how["since"], how["subject"]))
    plan: dict[tuple[str, str], list[int]] = {}
    for one in items:
        plan.setdefault((one["mailbox"], one["name"]), []).append(one["place"])
    for (_, name), places in plan.items():
        target = how["into"] or "where they were"
        click.echo(f"{len(places)} messages of {name} come back: {target}", err=True)
    if items and not how["yes"] and sys.stdin.isatty():
        click.confirm(f"Restore {len(items)} messages of {address}?", abort=True, err=True)
    shares = [(mailbox, places) for (mailbox, _), places in plan.items()]
    count = run(directory, lambda api: brought_back(api, address, shares, how["into"], as_json=how["as_json"]))
    answer(how["as_json"], {"restored": count}, f"{count} messages of {address} are back.")


async def found(api: Api, address: str, mailbox: str, since: str | None, subject: str) -> list[Any]:
    """What can be restored, of a mailbox (empty = all), expunged since a day, with this in the subject."""
    query: dict[str, str | int] = {"mailbox": mailbox, "since": midnight(since, "--since") if since else 0, "subject": subject}
    return [line async for line in api.lines("GET", path("accounts", address, "expunged"), **query)]


async def brought_back(api: Api, address: str, plan: Sequence[tuple[str, list[int]]], into: str, *, as_json: bool) -> int:
    """How many came back. `plan`: of mailboxes, by id, the places."""
    total, asked, count = sum(len(places) for _, places in plan), 0, 0
    with Work(as_json) as work:
        for mailbox, places in plan:
            for start in range(0, len(places), PLACES_PER_REQUEST_MAX):
                share = places[start : start + PLACES_PER_REQUEST_MAX]
                body = {"mailbox": mailbox, "places": ranges.compress(share), "into": into}
                told = await api.ask("POST", path("accounts", address, "expunged", "restore"), body)
                count += told["messages"] if told else len(share)  # durable, and not shown here yet
                asked += len(share)
                work.show({"kind": "progress", "step": "restore", "done": asked, "total": total, "unit": "messages"})
    return count


def _day(at: int) -> str:
    return f"{datetime.datetime.fromtimestamp(at, datetime.UTC):%Y-%m-%d %H:%M}"
