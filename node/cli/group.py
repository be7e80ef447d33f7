"""`angarium group`: one address, many members."""

from pathlib import Path

import click

from node.cli.client import path, run
from node.cli.output import show_list
from node.cli.shape import answer, json_option


@click.group()
def command() -> None:
    """Addresses whose mail goes to all their members."""


@command.command()
@click.argument("address")
@click.argument("members", nargs=-1)
@click.option("--name", default="", help="As people know it.")
@json_option
@click.pass_obj
def add(directory: Path, address: str, members: tuple[str, ...], name: str, as_json: bool) -> None:
    """Add a group, with MEMBERS if you like: people, other groups, addresses elsewhere."""
    body = {"address": address, "name": name, "members": members}
    item = run(directory, lambda api: api.ask("POST", path("groups"), body))
    answer(as_json, item, f"{item['address']} added, {len(item['members'])} members." if item else "")


@command.command("list")
@click.option("--domain", default="", help="Of this domain only.")
@json_option
@click.pass_obj
def show_all(directory: Path, domain: str, as_json: bool) -> None:
    """All groups."""
    items = run(directory, lambda api: api.pages(path("groups"), domain=domain))
    cells = [(item["address"], item["name"], str(len(item["members"]))) for item in items]
    show_list(as_json, items, ("Address", "Name", "Members"), cells)


@command.command()
@click.argument("address")
@json_option
@click.pass_obj
def remove(directory: Path, address: str, as_json: bool) -> None:
    """Remove a group; its members stay."""
    run(directory, lambda api: api.ask("DELETE", path("groups", address)))
    answer(as_json, {"removed": address}, f"{address} removed.")


@command.command()
@click.argument("address")
@json_option
@click.pass_obj
def members(directory: Path, address: str, as_json: bool) -> None:
    """Who is in a group."""
    items = run(directory, lambda api: api.ask("GET", path("groups", address, "members")))["items"]
    show_list(as_json, items, ("Member",), [(item,) for item in items])


@command.command()
@click.argument("address")
@click.argument("members", nargs=-1, required=True)
@json_option
@click.pass_obj
def join(directory: Path, address: str, members: tuple[str, ...], as_json: bool) -> None:
    """Put MEMBERS into the group."""
    _change(directory, address, {"add": members}, as_json)


@command.command()
@click.argument("address")
@click.argument("members", nargs=-1, required=True)
@json_option
@click.pass_obj
def leave(directory: Path, address: str, members: tuple[str, ...], as_json: bool) -> None:
    """Take MEMBERS out of the group."""
    _change(directory, address, {"remove": members}, as_json)


def _change(directory: Path, address: str, body: dict[str, tuple[str, ...]], as_json: bool) -> None:
    said = run(directory, lambda api: api.ask("PATCH", path("groups", address, "members"), body))
    items = said["items"] if said else []
    answer(as_json, items, f"{address} has {len(items)} members now." if said else "")
