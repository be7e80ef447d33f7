"""`angarium rebuild`: the tables anew from the log."""

from pathlib import Path

import click

from node.cli.client import path, run
from node.cli.output import follow_work
from node.cli.shape import answer, json_option


@click.command()
@json_option
@click.pass_obj
def command(directory: Path, as_json: bool) -> None:
    """Make the site's tables anew from its log, while it serves. With --json one object a line."""
    run(directory, lambda api: follow_work(api.lines("POST", path("rebuild")), as_json))
    answer(as_json, {"kind": "finished"}, "The tables were rebuilt from the log.")
