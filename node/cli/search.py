"""`angarium search`: the site's search index."""

import shutil
from pathlib import Path

import click

from node.cli.client import path, run
from node.cli.shape import Complaint, answer, json_option
from node.config import ConfigRefused, load


@click.group(name="search")
def command() -> None:
    """How far the search index has come; made anew."""


@command.command()
@json_option
@click.pass_obj
def show(directory: Path, as_json: bool) -> None:
    """How many messages it has, and how many are to come."""
    found = run(directory, lambda api: api.ask("GET", path("state")))["search"]
    size = f"{found['size_bytes'] / 1024**2:,.1f} MiB"
    answer(as_json, found, f"{found['indexed']:,} messages indexed, {found['waiting']:,} to come; {size}")


@command.command()
@json_option
@click.pass_obj
def renew(directory: Path, as_json: bool) -> None:
    """Throw it away: the site makes it again, and searches read the messages meanwhile. It may be running."""
    try:
        config = load(directory)
    except ConfigRefused as error:
        raise Complaint(str(error)) from error
    # What lies in a mailbox's folder goes; the folder of the lock stays, so that no second process begins.
    for folder in config.search_dir.glob("*/*/"):
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Complaint(f"{error.strerror}: {folder}: remove it by hand") from error
    answer(as_json, {"kind": "finished"}, "The search index is made anew.")
