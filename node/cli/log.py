"""`angarium log`: every change of the site, as people read it."""

import contextlib
import json
from pathlib import Path
from typing import Any

import click

from node.cli.client import Api, path, run
from node.cli.shape import json_option


@click.group()
def command() -> None:
    """Every change of the site, who made it and from where."""


@command.command()
@click.option("--follow", "-f", is_flag=True, help="Wait for more, until Ctrl-C.")
@click.option("--partition", default="", help="Of this partition only.")
@click.option(
    "--lines", "-n", type=click.IntRange(0, 1000), default=20, show_default=True, help="How many of the last."
)
@click.option(
    "--after", metavar="POSITION", default=None, help="All above a position, such as 1.0, in place of the last."
)
@json_option
@click.pass_obj
def tail(directory: Path, follow: bool, partition: str, lines: int, after: str | None, as_json: bool) -> None:
    """The last events of the log. With --json one object a line."""
    query: dict[str, str | int] = {"partition": partition, "follow": "true" if follow else "false"}
    query |= {"last": lines} if after is None else {"after": after}

    async def print_all(api: Api) -> None:
        async for event in api.lines("GET", path("log"), **query):
            click.echo(json.dumps(event, ensure_ascii=False) if as_json else event_line(event))

    with contextlib.suppress(KeyboardInterrupt):
        run(directory, print_all)


def event_line(event: dict[str, Any]) -> str:
    """When, where in the log, what, of whom; then who did it from where, then the details."""
    by = " ".join(word for word in (event["by"], event["protocol"], event["address"]) if word)
    details = " ".join(
        f"{name}={_shown(value)}" for name, value in event["data"].items() if value not in ("", None, [], {})
    )
    parts = (
        click.style(event["at"], dim=True),
        f"{event['partition']}/{event['position']}",
        click.style(event["type"], fg="cyan", bold=True),
        event["entity"],
        click.style(f"by {by or 'nobody'}", fg="green"),
        details,
    )
    return " ".join(part for part in parts if part)


def _shown(value: object) -> str:
    return (
        value
        if isinstance(value, str) and value.isprintable() and " " not in value
        else json.dumps(value, ensure_ascii=False)
    )
