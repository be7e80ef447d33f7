"""`angarium join` and `angarium witness`: a new machine comes to an organisation, by a token of its first site."""

import asyncio
import datetime
import sys
from pathlib import Path
from typing import Any

import click

from node.backbone import ConfigRefused
from node.cli.init import reached
from node.cli.shape import Complaint, answer, json_option
from node.config import PORT_BASE_MAX
from node.entering import enter
from node.init import Plan
from node.tokens import JoinToken, TokenRefused, read

_options: tuple[Any, ...] = (
    click.argument("directory", type=click.Path(path_type=Path, readable=False)),
    click.option("--token", "text", required=True, help="From `angarium cluster token` at the first site; - = standard input."),
    click.option("--site", default="", help="The new site's name, if the token names none; it never changes."),
    click.option("--host", help="Where the other sites reach this one [--bind; if that is all addresses, --hostname]."),
    click.option("--hostname", default="", help="What clients connect to [--host, or SITE.DOMAIN]."),
    click.option("--port-base", type=click.IntRange(0, PORT_BASE_MAX), default=0, help="Added to every standard port."),
    click.option("--bind", default="127.0.0.1", show_default=True, help="The address to listen on."),
    json_option,
)


def _with_options(function: Any) -> Any:
    for option in reversed(_options):
        function = option(function)
    return function


@click.command("join")
@_with_options
def command(directory: Path, **options: Any) -> None:
    """Make a new site in DIRECTORY, of the organisation whose first site gave the token."""
    _enter(directory, witness=False, **options)


@click.command("witness")
@_with_options
def witness(directory: Path, **options: Any) -> None:
    """Make a witness in DIRECTORY: it holds no mail, and decides with two sites which of them goes on."""
    _enter(directory, witness=True, **options)


def _enter(
    directory: Path, *, witness: bool, text: str, site: str, host: str | None, hostname: str, port_base: int, bind: str,
    as_json: bool,
) -> None:  # fmt: skip  # one parameter for each option of the verb
    try:
        token = read(_text(text))
        name = _name(token, site)
        at = host or reached(bind, hostname)
        if not at:
            raise ConfigRefused("--host or --hostname must say where the other sites reach this one: --bind does not")
        plan = Plan(directory, name, "", hostname, bind, port_base, host=at, witness=witness)
        config = asyncio.run(enter(plan, token, datetime.datetime.now(datetime.UTC)))
    except (ConfigRefused, TokenRefused) as error:
        raise Complaint(str(error)) from None
    except OSError as error:
        raise Complaint(f"{error.filename}: {error.strerror}: choose a folder that you may write to") from None
    assert config.backbone is not None
    members = [member.site for member in config.backbone.members]
    facts = {"dir": str(config.dir), "site": config.site, "domain": config.domain, "members": members}
    what = "Witness" if witness else "Site"
    answer(as_json, facts, f"{what} {name} joined {', '.join(members[:-1])}. Start it: angarium up {directory}")


def _name(token: JoinToken, site: str) -> str:
    """Raises ConfigRefused."""
    if not (name := site or token.site):
        raise ConfigRefused("--site must name the new site: the token leaves it open")
    return name


def _text(given: str) -> str:
    return sys.stdin.read() if given == "-" else given
