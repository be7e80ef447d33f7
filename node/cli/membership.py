"""`angarium cluster token` (`cluster site add`) and `angarium cluster revoke`: who is let in, and who is shut out."""

import datetime
import re
from pathlib import Path
from typing import Any

import click

from node.cli.client import Api, path, run
from node.cli.shape import answer, json_option

UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86_400.0}


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    found = re.fullmatch(r"(\d{1,5})([mhd])", text)
    if found is None:
        raise click.BadParameter(f"must be like 30m, 24h or 7d, not {text!r}")
    return int(found[1]) * UNITS_S[found[2]]


@click.command()
@click.option("--site", default="", help="The only name that may join by it [any].")
@click.option("--host", default="", help="Where the new machine reaches this site [as this site was made].")
@click.option("--expires", "expires_s", default="24h", show_default=True, callback=_seconds, help="30m, 24h, 7d.")
@click.option("--renew", is_flag=True, help="For SITE's certificates instead: `angarium certificate renew --token`.")
@json_option
@click.pass_obj
def token(directory: Path, site: str, host: str, expires_s: float, renew: bool, as_json: bool) -> None:
    """Print a token by which one new site may join: `angarium join DIR --token TOKEN`."""
    if renew and not site:
        raise click.UsageError("--renew needs --site")
    _give(directory, {"site": site, "host": host, "expires_s": expires_s, "renew": renew}, as_json)


@click.command("add")
@click.argument("site", metavar="[NAME]", default="")
@click.option("--host", default="", help="Where the new machine reaches this site [as this site was made].")
@click.option("--expires", "expires_s", default="24h", show_default=True, callback=_seconds, help="30m, 24h, 7d.")
@json_option
@click.pass_obj
def add_site(directory: Path, site: str, host: str, expires_s: float, as_json: bool) -> None:
    """Let a new site in, NAME or any: prints the token by which it joins, `angarium join DIR --token TOKEN` there."""
    _give(directory, {"site": site, "host": host, "expires_s": expires_s}, as_json)


def _give(directory: Path, body: dict[str, Any], as_json: bool) -> None:
    async def ask(api: Api) -> Any:
        return await api.ask("POST", path("cluster", "tokens"), body)

    given = run(directory, ask)
    until = datetime.datetime.fromtimestamp(given["expires_at"], datetime.UTC)
    click.echo(f"angarium: good for one site until {until:%Y-%m-%d %H:%M} UTC; it is a secret", err=True)
    if given["note"]:
        click.echo(f"angarium: {given['note']}", err=True)
    answer(as_json, given, given["token"])


@click.command()
@click.argument("site")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def revoke(directory: Path, site: str, yes: bool, as_json: bool) -> None:
    """Shut SITE out for ever, because it was stolen or is given up: its certificate and its keys are refused from now on."""
    if not yes:
        click.confirm(f"Shut {site} out for ever? What lies only there is lost", abort=True, err=True)

    async def ask(api: Api) -> Any:
        return await api.ask("POST", path("cluster", "sites", site, "revoke"))

    done = run(directory, ask)
    answer(as_json, done, f"{site} is shut out; members are {', '.join(done['members'])}.")
