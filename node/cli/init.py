"""`angarium init`: the folder of a new site."""

import datetime
import re
from pathlib import Path

import click

from node.cli.shape import Complaint, answer, json_option
from node.config import PORT_BASE_MAX, Config, ConfigRefused, Member
from node.init import Plan, make_site


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, readable=False))
@click.option("--site", required=True, help="The site's name, one word; it never changes.")
@click.option("--domain", required=True, help="The first mail domain.")
@click.option(
    "--hostname",
    help="What clients connect to [mail.DOMAIN; of several sites: the host of its --member, or SITE.DOMAIN].",
)
@click.option("--port-base", type=click.IntRange(0, PORT_BASE_MAX), default=0, help="Added to every standard port.")
@click.option("--bind", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--member",
    "members",
    multiple=True,
    metavar="SITE=HOST:PORT_BASE",
    help="One for each of three sites, the first one's first: how the others reach it.",
)
@click.option(
    "--like",
    type=click.Path(path_type=Path, readable=False),
    help="The folder of the first site: another site of the same organisation, with its members and its authority.",
)
@click.option("--host", help="Where other sites will reach this one [--bind; if that is all addresses, --hostname].")
@click.option("--alone", is_flag=True, help="Other sites shall never join: one process less.")
@click.option("--demo", is_flag=True, help="With two people, whose passwords are printed.")
@json_option
def command(
    directory: Path,
    site: str,
    domain: str,
    hostname: str | None,
    port_base: int,
    bind: str,
    members: tuple[str, ...],
    like: Path | None,
    host: str | None,
    alone: bool,
    demo: bool,
    as_json: bool,
) -> None:  # one parameter for each option of the verb: more than six is what the verb is
    """Make a new site in DIRECTORY: configuration, certificates, secrets."""
    try:
        known = tuple(_member(text) for text in members)
        host = "" if alone or known or like else host or reached(bind, hostname or f"mail.{domain}")
        plan = Plan(directory, site, domain, hostname or "", bind, port_base, demo, known, like, host)
        config = make_site(plan, datetime.datetime.now(datetime.UTC))
    except ConfigRefused as error:
        raise Complaint(str(error)) from None
    except OSError as error:
        raise Complaint(f"{error.filename}: {error.strerror}: choose a folder that you may write to") from None
    answer(as_json, _facts(config), f"Made site {site} in {config.dir}. Start it: angarium up {directory}")


def reached(bind: str, hostname: str) -> str:
    return hostname if bind in ("0.0.0.0", "::") else bind  # noqa: S104 (compared, not bound)


def _member(text: str) -> Member:
    """Raises ConfigRefused."""
    found = re.fullmatch(r"([^=]+)=(.+):(\d{1,5})", text)
    if found is None:
        raise ConfigRefused(f"--member must be like north=192.0.2.1:9000, not {text!r}")
    return Member(found[1], found[2].strip("[]"), int(found[3]))


def _facts(config: Config) -> dict[str, str]:
    return {"dir": str(config.dir), "site": config.site, "domain": config.domain, "ca": str(config.tls.ca)}
