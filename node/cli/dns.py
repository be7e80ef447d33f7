"""`angarium dns`: what belongs into a domain's zone."""

from pathlib import Path

import click

from node.cli.client import path, run
from node.cli.shape import Complaint, answer, json_option
from node.config import ConfigRefused, load


@click.command()
@click.argument("domain", required=False)
@json_option
@click.pass_obj
def command(directory: Path, domain: str | None, as_json: bool) -> None:
    """What belongs into the zone of DOMAIN [the site's first one], so that mail and mail programs find all sites."""
    try:
        wanted = domain or load(directory).domain
    except ConfigRefused as error:
        raise Complaint(str(error)) from None
    found = run(directory, lambda api: api.ask("GET", path("domains", wanted, "dns")))
    answer(as_json, found, found["zone"].rstrip("\n"))
