"""`angarium alias`: addresses that lead to others."""

from pathlib import Path

import click

from node.cli.client import path, run
from node.cli.output import show_list
from node.cli.shape import answer, json_option


@click.group()
def command() -> None:
    """Addresses that lead to others, here or elsewhere."""


@command.command()
@click.argument("address")
@click.argument("targets", nargs=-1, required=True)
@json_option
@click.pass_obj
def add(directory: Path, address: str, targets: tuple[str, ...], as_json: bool) -> None:
    """Mail for ADDRESS goes to TARGETS."""
    item = run(directory, lambda api: api.ask("POST", path("aliases"), {"address": address, "targets": targets}))
    answer(as_json, item, f"{item['address']} leads to {', '.join(item['targets'])}." if item else "")


@command.command("list")
@click.option("--domain", default="", help="Of this domain only.")
@json_option
@click.pass_obj
def show_all(directory: Path, domain: str, as_json: bool) -> None:
    """All aliases."""
    items = run(directory, lambda api: api.pages(path("aliases"), domain=domain))
    show_list(
        as_json, items, ("Address", "Leads to"), [(item["address"], ", ".join(item["targets"])) for item in items]
    )


@command.command()
@click.argument("address")
@json_option
@click.pass_obj
def remove(directory: Path, address: str, as_json: bool) -> None:
    """Remove an alias."""
    run(directory, lambda api: api.ask("DELETE", path("aliases", address)))
    answer(as_json, {"removed": address}, f"{address} removed.")
