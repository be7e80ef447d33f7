"""`angarium doctor`: looks at a site and says what to do about each finding."""

import datetime
from pathlib import Path

import click
import msgspec

from node.cli.shape import answer, json_option
from node.doctor import Finding, examine

COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


@click.command()
@json_option
@click.pass_obj
@click.pass_context
def command(ctx: click.Context, directory: Path, as_json: bool) -> None:
    """Check configuration, ports, certificates, disk, engines and clock. Exit code 1 if anything is wrong."""
    findings = examine(directory, datetime.datetime.now(datetime.UTC))
    answer(as_json, msgspec.to_builtins(findings), "\n".join(map(_line, findings)))
    ctx.exit(1 if any(finding.level == "error" for finding in findings) else 0)


def _line(finding: Finding) -> str:
    mark = click.style(f"{finding.level:<8}", fg=COLOURS[finding.level])
    return f"{mark}{finding.check}: {finding.text}" + (f"\n        → {finding.remedy}" if finding.remedy else "")
