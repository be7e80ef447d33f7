"""`angarium cluster`: all sites, from any of them. What changes something shows its plan first, and asks."""

import asyncio
import json
import sys
import tomllib
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from node.cli.client import Api, path, run
from node.cli.cluster_mending import salvage, verify
from node.cli.cluster_tables import plan_table, status_lines, status_page, topology_toml
from node.cli.membership import add_site, revoke, token
from node.cli.output import Work
from node.cli.shape import Complaint, json_option

WATCH_EVERY_S = 1.0

plan_option = click.option("--plan", "only_plan", is_flag=True, help="Only show what would be done.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
durability_option = click.option("--durability", type=click.Choice(["local", "remote"]), default=None)
copies_option = click.option("--copies", default=None, metavar="SITE,SITE", help="Sites with a copy, beside the home.")
window_option = click.option(
    "--window", multiple=True, metavar="SITE=DAYS", help="The copy there keeps so many days' content; 0 = all."
)


@click.group()
def command() -> None:
    """All sites: what is where, and how it is moved."""


command.add_command(token)
command.add_command(salvage)
command.add_command(verify)
command.add_command(revoke)


@command.command()
@click.option("--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
@json_option
@click.pass_obj
def status(directory: Path, watch: bool, as_json: bool) -> None:
    """Sites, nodes, links and partitions, as this site sees them. Works when it is cut off, and says so. With --watch and
    --json one object a line."""

    async def look(api: Api) -> None:
        if not watch:
            _show_status(await api.ask("GET", path("cluster")), as_json)
            return
        with Live(
            console=Console(highlight=False), refresh_per_second=4, screen=not as_json and sys.stdout.isatty()
        ) as live:
            while True:
                seen = await api.ask("GET", path("cluster"))
                if as_json or not sys.stdout.isatty():
                    _show_status(seen, as_json)
                else:
                    live.update(status_page(seen))
                await asyncio.sleep(WATCH_EVERY_S)

    with suppress(KeyboardInterrupt):
        run(directory, look)


@command.command()
@click.argument("partitions", nargs=-1)
@click.option("--to", default="", metavar="SITE", help="The new home; else each goes to its nearest copy.")
@click.option("--from", "away_from", default="", metavar="SITE", help="All that are at home there.")
@plan_option
@yes_option
@json_option
@click.pass_obj
def switchover(
    directory: Path, /, partitions: tuple[str, ...], to: str, away_from: str, **how: bool
) -> None:  # click gives every option a parameter of its own
    """Move the homes of PARTITIONS without loss; writers wait less than a second."""
    if bool(partitions) == bool(away_from):
        raise click.UsageError("name partitions, or --from a site")
    body = {"partitions": partitions, "to": to, "from": away_from}
    _change(directory, ("POST", path("cluster", "switchover")), body, **how)


@command.command()
@click.argument("partitions", nargs=-1, required=True)
@click.option("--to", required=True, metavar="SITE", help="The copy that becomes the home.")
@click.option("--force", is_flag=True, help="Accept that what the copy lacks is rolled back.")
@plan_option
@yes_option
@json_option
@click.pass_obj
def failover(directory: Path, /, partitions: tuple[str, ...], to: str, force: bool, **how: bool) -> None:
    """Take PARTITIONS over by force, where their home is lost."""
    if not force and not how["only_plan"]:
        raise Complaint("what the copy lacks would be rolled back: look at it with --plan, then say --force")
    body = {"partitions": partitions, "to": to, "force": force}
    _change(directory, ("POST", path("cluster", "failover")), body, **how)


@command.group()
def site() -> None:
    """Sites."""


@site.command("drain")
@click.argument("name", metavar="SITE")
@plan_option
@yes_option
@json_option
@click.pass_obj
def drain_site(directory: Path, /, name: str, **how: bool) -> None:
    """Move all homes away from SITE, before maintenance. It goes on serving from its copies."""
    _change(directory, ("POST", path("cluster", "sites", name, "drain")), {}, **how)


@site.command("remove")
@click.argument("name", metavar="SITE")
@plan_option
@yes_option
@json_option
@click.pass_obj
def remove_site(directory: Path, /, name: str, **how: bool) -> None:
    """Take SITE out of the organisation for good: its homes and copies go elsewhere, then it is shut out."""
    _change(directory, ("POST", path("cluster", "sites", name, "remove")), {}, **how)


site.add_command(add_site)


@command.group()
def node() -> None:
    """Nodes."""


@node.command("drain")
@click.argument("name", metavar="NODE")
@plan_option
@yes_option
@json_option
@click.pass_obj
def drain_node(directory: Path, /, name: str, **how: bool) -> None:
    """Give all leases of NODE to other nodes of its site, until it is started again."""
    _change(directory, ("POST", path("cluster", "nodes", name, "drain")), {}, **how)


@node.command("add")
@plan_option
@yes_option
@json_option
@click.pass_obj
def add_node(directory: Path, /, **how: bool) -> None:
    """Start one more node at this site, now and at every start. Nobody else is started anew."""
    _change(directory, ("POST", path("cluster", "nodes")), {}, **how)


@node.command("remove")
@click.argument("name", metavar="NODE")
@plan_option
@yes_option
@json_option
@click.pass_obj
def remove_node(directory: Path, /, name: str, **how: bool) -> None:
    """Stop NODE, the last one of this site, for good. Its leases go to others first."""
    _change(directory, ("POST", path("cluster", "nodes", name, "remove")), {}, **how)


@command.group()
def partition() -> None:
    """Partitions: where mail is kept."""


@partition.command()
@click.argument("name")
@click.option("--home", required=True, metavar="SITE")
@copies_option
@durability_option
@click.option("--strict", is_flag=True, help="With remote: refuse writes while no copy is there.")
@click.option("--pinned", is_flag=True, help="Only an operator moves it.")
@window_option
@plan_option
@yes_option
@json_option
@click.pass_obj
def add(directory: Path, /, name: str, home: str, copies: str | None, window: tuple[str, ...], **options: Any) -> None:
    """Make a partition. Without --copies every other site gets one."""
    how = _how(options)
    body = {"name": name, "home": home} | {key: value for key, value in options.items() if value is not None}
    _change(directory, ("POST", path("cluster", "partitions")), body | _copies(copies) | _windows(window), **how)


@partition.command("set")
@click.argument("name")
@durability_option
@click.option("--strict/--not-strict", default=None, help="With remote: refuse writes while no copy is there.")
@click.option("--pinned/--leased", default=None, help="Only an operator moves it, or it fails over by itself.")
@window_option
@plan_option
@yes_option
@json_option
@click.pass_obj
def change(directory: Path, /, name: str, window: tuple[str, ...], **options: Any) -> None:
    """Change how a partition is kept."""
    how = _how(options)
    body = {key: value for key, value in options.items() if value is not None} | _windows(window)
    if not body:
        raise click.UsageError("say what is to change")
    _change(directory, ("PATCH", path("cluster", "partitions", name)), body, **how)


@partition.command()
@click.argument("name")
@click.option("--to", "home", default=None, metavar="SITE", help="The new home.")
@copies_option
@plan_option
@yes_option
@json_option
@click.pass_obj
def move(directory: Path, /, name: str, home: str | None, copies: str | None, **how: bool) -> None:
    """Give a partition another home, other copies, or both. New copies are whole before old ones go."""
    body = ({"home": home} if home else {}) | _copies(copies)
    if not body:
        raise click.UsageError("say --to, --copies or both")
    _change(directory, ("PATCH", path("cluster", "partitions", name)), body, **how)


@command.group()
def topology() -> None:
    """Where every partition lies, as one file."""


@topology.command("show")
@json_option
@click.pass_obj
def show_topology(directory: Path, as_json: bool) -> None:
    """Today's topology as TOML, which `apply` takes back unchanged."""
    found = run(directory, lambda api: api.ask("GET", path("cluster", "topology")))
    click.echo(json.dumps(found, ensure_ascii=False) if as_json else topology_toml(found), nl=as_json)


@topology.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@plan_option
@yes_option
@json_option
@click.pass_obj
def apply(directory: Path, /, file: Path, **how: bool) -> None:
    """Place the partitions as FILE says. What cannot hold is refused with the reason."""
    try:
        wanted = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Complaint(f"{file}: {error}") from None
    _change(directory, ("PUT", path("cluster", "topology")), wanted, plan_in_query=True, **how)


# ── the way of every change ──────────────────────────────────────────────────────────────────────────────────────────


def _change(
    directory: Path,
    where: tuple[str, str],
    body: dict[str, Any],
    *,
    only_plan: bool,
    yes: bool,
    as_json: bool,
    plan_in_query: bool = False,
) -> None:
    """The plan, the question, then the work."""
    method, at = where

    def asked(api: Api, plan: bool) -> AsyncIterator[Any]:
        if plan_in_query:
            return api.lines(method, at, body, plan="true" if plan else "false")
        return api.lines(method, at, body | {"plan": plan})

    async def planned(api: Api) -> list[Any]:
        return [line async for line in asked(api, True)]

    steps = run(directory, planned)
    if only_plan and as_json:
        for step in steps:
            click.echo(json.dumps(step, ensure_ascii=False))
    elif not as_json:
        _show_plan(steps)
    if only_plan or not steps:
        return
    if refused := list(dict.fromkeys(step["refused"] for step in steps if step["refused"])):
        raise Complaint(f"nothing was changed: {'; '.join(refused)}")
    if not yes:
        if not sys.stdin.isatty():
            raise Complaint("nothing was changed: say --yes, as nobody can be asked here")
        click.confirm("Do it?", abort=True, err=True)
    run(directory, lambda api: _done(asked(api, False), as_json))


async def _done(lines: AsyncIterator[Any], as_json: bool) -> None:
    with Work(as_json) as work:
        async for line in lines:
            if line["kind"] == "progress" or as_json:
                work.show(line)
            elif line["kind"] == "did":
                took = {"move": "writers waited about ", "force": "after "}.get(line["action"])
                click.echo(f"{line['text']}: done" + ("" if took is None else f", {took}{line['seconds']:.2f} s"))
            if line.get("warning") and not as_json:
                work.say(f"warning: {line['warning']}")


def _show_plan(steps: list[Any]) -> None:
    if not steps:
        click.echo("Everything is so already.")
    elif sys.stdout.isatty():
        Console(highlight=False).print(plan_table(steps))
    else:
        for step in steps:
            click.echo(f"{step['number']}\t{step['text']}\t{step['refused']}")


def _show_status(seen: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(seen, ensure_ascii=False))
    elif sys.stdout.isatty():
        Console(highlight=False).print(status_page(seen))
    else:
        for line in status_lines(seen):
            click.echo(line)


def _how(options: dict[str, Any]) -> dict[str, bool]:
    """Takes from a verb's options those that say how it is to be done."""
    return {name: options.pop(name) for name in ("only_plan", "yes", "as_json")}


def _copies(text: str | None) -> dict[str, list[str]]:
    return {} if text is None else {"copies": [site.strip() for site in text.split(",") if site.strip()]}


def _windows(given: tuple[str, ...]) -> dict[str, dict[str, int]]:
    windows = {}
    for each in given:
        site, equals, days = each.partition("=")
        if not equals or not site or not days.isdecimal():
            raise click.UsageError(f"--window {each}: say SITE=DAYS, a number of days; 0 = all is kept there")
        windows[site] = int(days)
    return {"windows": windows} if windows else {}
