"""`angarium backup`: all of a running site, into a folder."""

from pathlib import Path

import click

from node.cli.client import path, run
from node.cli.output import follow_work
from node.cli.shape import answer, json_option


@click.command()
@click.argument("target", type=click.Path(path_type=Path, readable=False))
@json_option
@click.pass_obj
def command(directory: Path, target: Path, as_json: bool) -> None:
    """Back the site up into TARGET, a folder that is not there yet, while it serves. With --json one object a line."""
    where = str(target.absolute())
    run(directory, lambda api: follow_work(api.lines("POST", path("backup"), {"target": where}), as_json))
    answer(as_json, {"kind": "finished", "target": where}, f"Backed up to {where} and verified.")
