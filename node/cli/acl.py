"""`angarium acl`: who may do what with a mailbox beside its owner (RFC 4314)."""

from pathlib import Path
from typing import Any

import click

from node.cli.client import Api, path, run
from node.cli.output import show_list
from node.cli.shape import Complaint, answer, json_option


@click.group()
def command() -> None:
    """Who may do what with somebody's mailboxes: l look up, r read, s keep what is read, w write flags, i insert, k create
    beneath, x delete it, t mark as deleted, e expunge, a administer."""


@command.command("list")
@click.argument("address")
@click.argument("mailbox", default="INBOX")
@json_option
@click.pass_obj
def show_all(directory: Path, address: str, mailbox: str, as_json: bool) -> None:
    """Who has rights to MAILBOX (else INBOX) of the account ADDRESS."""

    async def ask(api: Api) -> Any:
        return await api.ask("GET", await _rights(api, address, mailbox))

    items = run(directory, ask)["items"]
    show_list(as_json, items, ("Who", "Rights"), [(item["identifier"], item["rights"]) for item in items])


@command.command("set")
@click.argument("address")
@click.argument("mailbox")
@click.argument("identifier")
@click.argument("rights")
@json_option
@click.pass_obj
def put(directory: Path, address: str, mailbox: str, identifier: str, rights: str, as_json: bool) -> None:
    """IDENTIFIER (an account's or a group's address, or anyone; with - before it to take away) may do RIGHTS with MAILBOX of
    the account ADDRESS, and nothing else. Options end at --."""

    async def ask(api: Api) -> Any:
        return await api.ask("PUT", await _rights(api, address, mailbox, identifier), {"rights": rights})

    answer(as_json, run(directory, ask), f"{identifier} has {rights or 'no rights'} to {mailbox} of {address}.")


@command.command()
@click.argument("address")
@click.argument("mailbox")
@click.argument("identifier")
@json_option
@click.pass_obj
def delete(directory: Path, address: str, mailbox: str, identifier: str, as_json: bool) -> None:
    """IDENTIFIER has no rights of its own to MAILBOX of the account ADDRESS any more."""

    async def ask(api: Api) -> Any:
        return await api.ask("DELETE", await _rights(api, address, mailbox, identifier))

    run(directory, ask)
    answer(as_json, {"deleted": identifier}, f"{identifier} has no rights of its own to {mailbox} of {address}.")


async def _rights(api: Api, address: str, mailbox: str, *identifier: str) -> str:
    boxes = await api.ask("GET", path("accounts", address, "mailboxes"))
    found = [box["id"] for box in boxes["items"] if box["name"] == mailbox]
    if not found:
        raise Complaint(f"{address} has no mailbox {mailbox}")
    return path("accounts", address, "mailboxes", found[0], "rights", *identifier)
