"""`angarium domain`: whose mail the site takes."""

from pathlib import Path
from typing import Any

import click

from cluster.domain.directory.decide import UNDELETE_DAYS_MAX
from node.cli import quota
from node.cli.client import path, run
from node.cli.output import show_list
from node.cli.shape import answer, json_option

catch_all_option = click.option(
    "--catch-all", default=None, metavar="ADDRESS", help='Takes mail for unknown names; "" for none.'
)
plus_option = click.option(
    "--plus/--no-plus", default=None, help="Whether anna+shop@ reaches anna@ (it does by default)."
)


@click.group()
def command() -> None:
    """Domains whose mail the site takes."""


@command.command()
@click.argument("domain")
@catch_all_option
@plus_option
@json_option
@click.pass_obj
def add(directory: Path, domain: str, catch_all: str | None, plus: bool | None, as_json: bool) -> None:
    """Add a domain."""
    body = {"domain": domain} | _settings(catch_all, plus)
    item = run(directory, lambda api: api.ask("POST", path("domains"), body))
    answer(as_json, item, f"{item['domain']} added." if item else "")


@command.command("list")
@json_option
@click.pass_obj
def show_all(directory: Path, as_json: bool) -> None:
    """All domains."""
    items = run(directory, lambda api: api.pages(path("domains")))
    cells = [(item["domain"], item["catch_all"], "plus" if item["plus"] else "no plus") for item in items]
    show_list(as_json, items, ("Domain", "Catch-all", ""), cells)


@command.command()
@click.argument("domain")
@json_option
@click.pass_obj
def show(directory: Path, domain: str, as_json: bool) -> None:
    """One domain."""
    item = run(directory, lambda api: api.ask("GET", path("domains", domain)))
    lines = (
        f"domain    {item['domain']}",
        f"catch-all {item['catch_all'] or 'none'}",
        f"plus      {'yes' if item['plus'] else 'no'}",
        f"quota     {quota.shown(item)}",
        f"undelete  for {item['undelete_days']} days" if item["undelete_days"] else "undelete  no",
    )
    answer(as_json, item, "\n".join(lines))


@command.command("set")
@click.argument("domain")
@catch_all_option
@plus_option
@click.option(
    "--undelete-days",
    type=click.IntRange(0, UNDELETE_DAYS_MAX),
    default=None,
    help="For so many days what people expunged can be restored; 0 = not at all.",
)
@quota.quota_options("none; for accounts that have none of their own")
@json_option
@click.pass_obj
def change(
    directory: Path,
    /,
    domain: str,
    catch_all: str | None,
    plus: bool | None,
    undelete_days: int | None,
    as_json: bool,
    **limits: str | None,
) -> None:
    """Change a domain's settings."""
    body = _settings(catch_all, plus) | quota.wanted(limits)
    if undelete_days is not None:
        body["undelete_days"] = undelete_days
    if not body:
        raise click.UsageError("nothing to change: give --catch-all, --plus, --no-plus, --undelete-days or a --quota")
    item = run(directory, lambda api: api.ask("PATCH", path("domains", domain), body))
    answer(as_json, item, f"{item['domain']} changed." if item else "")


@command.command()
@click.argument("domain")
@json_option
@click.pass_obj
def remove(directory: Path, domain: str, as_json: bool) -> None:
    """Remove a domain that has no addresses any more."""
    run(directory, lambda api: api.ask("DELETE", path("domains", domain)))
    answer(as_json, {"removed": domain}, f"{domain} removed.")


def _settings(catch_all: str | None, plus: bool | None) -> dict[str, Any]:
    return {key: value for key, value in (("catch_all", catch_all), ("plus", plus)) if value is not None}
