"""`angarium cluster salvage` and `angarium cluster verify`: what a failover or a disk left to settle."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from node.cli.client import Api, path, run
from node.cli.log import event_line
from node.cli.output import Work, show_list
from node.cli.shape import Complaint, answer, json_option

HEALS = {
    "log": "the copy of the log, there or here, that is not the home's is made anew from it, and folded again",
    "tables": "its tables and those here are taken back to where they are equal, and fold the log again",
    "disk": "its copy of the log is made anew from the home; its tables are right and stay",
}

partition_argument = click.argument("partition")
position_argument = click.argument("position")


@click.group()
def salvage() -> None:
    """What lost homes left behind: it is brought back by itself; what conflicts with what was done meanwhile is yours."""


@salvage.command("list")
@click.option("--all", "everything", is_flag=True, help="Also what is settled.")
@json_option
@click.pass_obj
def show_reports(directory: Path, everything: bool, as_json: bool) -> None:
    """Reports to be settled, and tails that lie at this site and are not in history yet."""
    query = {"all": "true"} if everything else {}
    found = run(directory, lambda api: api.ask("GET", path("cluster", "salvage"), **query))
    if as_json:
        answer(True, found, "")
        return
    columns = ("Partition", "Position", "State", "Age", "Whose", "What", "Why")
    show_list(False, found["items"], columns, [_cells(report) for report in found["items"]])
    if not found["items"]:
        click.echo("Nothing is to be settled.", err=True)
    for tail in found["waiting"]:
        where = f"{tail['partition']}: from {tail['after']} to {tail['last']}, done up to {tail['done']}"
        click.echo(f"not salvaged yet, lies here: {where}", err=True)
    for name in found["unread"]:
        click.echo(f"{name}: its log does not say whether something of it lies here", err=True)


@salvage.command("show")
@partition_argument
@position_argument
@json_option
@click.pass_obj
def show_report(directory: Path, partition: str, position: str, as_json: bool) -> None:
    """One report: what was lost, why it could not be done again, and what you can do."""
    report = run(directory, lambda api: api.ask("GET", path("cluster", "salvage", partition, position)))
    answer(as_json, report, _report_text(report))


@salvage.command()
@partition_argument
@position_argument
@json_option
@click.pass_obj
def apply(directory: Path, partition: str, position: str, as_json: bool) -> None:
    """Write down that you did what the report is about. (This does not do it: see `show`.)"""
    _settle(directory, (partition, position), "applied", as_json)


@salvage.command()
@partition_argument
@position_argument
@json_option
@click.pass_obj
def dismiss(directory: Path, partition: str, position: str, as_json: bool) -> None:
    """Write down that nobody wants what the report is about."""
    _settle(directory, (partition, position), "dismissed", as_json)


@salvage.command("give-up")
@partition_argument
@click.argument("epoch", type=click.IntRange(1))
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def give_up(directory: Path, partition: str, epoch: int, yes: bool, as_json: bool) -> None:
    """Say that the disk with the rest of EPOCH's tail is lost for good, so that clients are not kept waiting for it."""
    click.echo(f"What of epoch {epoch} of {partition} is not in history by now will count as lost.", err=True)
    _ask("Is it lost for good?", yes)
    run(directory, lambda api: api.ask("DELETE", path("cluster", "salvage", partition, "tails", str(epoch))))
    answer(as_json, {"partition": partition, "epoch": epoch}, f"The tail of epoch {epoch} of {partition} is given up.")


@click.command()
@click.argument("partitions", nargs=-1, metavar="[PARTITION]…")
@click.option(
    "--deep", is_flag=True, help="Read every site's log whole, and reckon it anew: finds what a disk changed."
)
@click.option("--heal", is_flag=True, help="Mend what differs, where nothing is lost by it.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def verify(directory: Path, /, partitions: tuple[str, ...], deep: bool, heal: bool, yes: bool, as_json: bool) -> None:
    """Compare PARTITIONS (or all) with every other site. Exit code 1 if something differs and was not healed, or a site
    did not answer. With --json one object a line."""
    body = {"partitions": partitions, "deep": deep}
    findings = run(directory, lambda api: _looked(api, body, as_json))
    differing = [finding for finding in findings if finding["verdict"] == "differs"]
    if heal and differing:
        _tell_what_heals(differing)
        _ask("Mend it?", yes)
        names = list(dict.fromkeys(finding["partition"] for finding in differing))
        again = run(directory, lambda api: _looked(api, {"partitions": names, "deep": deep, "heal": True}, as_json))
        findings = [*(finding for finding in findings if finding["partition"] not in names), *again]
    if not findings and not as_json:
        click.echo(
            "Nothing is to be compared: no other site has a copy. With --deep this site's own log is read.", err=True
        )
    if any(finding["verdict"] == "unknown" or _differs(finding) for finding in findings):
        sys.exit(1)


async def _looked(api: Api, body: dict[str, Any], as_json: bool) -> list[Any]:
    findings: list[Any] = []
    with Work(as_json) as work:
        async for line in api.lines("POST", path("cluster", "verify"), body):
            if line["kind"] == "finding":
                findings.append(line)
            if as_json:
                click.echo(json.dumps(line, ensure_ascii=False))
            elif line["kind"] == "progress":
                work.show(line)
    if not as_json:
        columns = ("Partition", "Site", "", "Equal up to", "First that differs", "")
        show_list(False, findings, columns, [_finding_cells(finding) for finding in findings])
    return findings


def _tell_what_heals(differing: Sequence[dict[str, Any]]) -> None:
    for finding in differing:
        words = (
            f"{finding['partition']} at {finding['site']}, from {finding['upto']} on: {HEALS[finding['differs_in']]}"
        )
        click.echo(f"will be mended: {words}", err=True)
    click.echo(
        "People there read on meanwhile; where tables are taken back they see older mail for a moment.", err=True
    )


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Complaint("nothing was changed: say --yes, as nobody can be asked here")
    click.confirm(question, abort=True, err=True)


def _settle(directory: Path, which: tuple[str, str], state: str, as_json: bool) -> None:
    where = path("cluster", "salvage", *which)
    report = run(directory, lambda api: api.ask("PATCH", where, {"state": state}))
    if report is not None:
        answer(as_json, report, f"{which[0]} {which[1]}: {report['what']}: {report['state']}.")


def _differs(finding: dict[str, Any]) -> bool:
    return finding["verdict"] == "differs" and not finding["healed"]


def _finding_cells(finding: dict[str, Any]) -> tuple[str, ...]:
    verdict = "healed" if finding["healed"] else finding["verdict"]
    where = f"{verdict} in {finding['differs_in']}" if verdict == "differs" else verdict
    return finding["partition"], finding["site"], where, finding["upto"], finding["first"] or "", finding["why"]


def _cells(report: dict[str, Any]) -> tuple[str, ...]:
    return (
        report["partition"],
        report["position"],
        report["state"],
        _age(report["age_s"]),
        report["whose"] or report["by"],
        report["what"],
        report["why"],
    )


def _report_text(report: dict[str, Any]) -> str:
    head = f"{report['partition']} {report['position']}: {report['state']}, reported {_age(report['age_s'])} ago"
    lines = [head, f"{report['what']}: {report['why']}"]
    if report["whose"]:
        lines.append(f"It is about {report['whose']}.")
    lines += ["", "What was lost with the home:" if report["event"] else "What was lost was too large to be kept here."]
    if report["event"]:
        lines.append(f"  {event_line(report['event'])}")
    return "\n".join([*lines, "", "What you can do:", *(f"  {advice}" for advice in report["advice"])])


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
