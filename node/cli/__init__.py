"""The command line. One verb, one module with a `command` (a click command or group), one row in VERBS.

Conventions, kept by node/cli/shape.py: every verb takes --json; an error is one line on stderr that says what to do,
with exit code 1; bad usage is exit code 2.
"""

import importlib
from pathlib import Path

import click

# A module is imported when its verb is used, so that each starts fast. Help shows them in this order.
VERBS: dict[str, str] = {
    "init": "node.cli.init",
    "join": "node.cli.join",
    "witness": "node.cli.witness",
    "up": "node.cli.up",
    "demo": "node.cli.demo",
    "account": "node.cli.account",
    "domain": "node.cli.domain",
    "dns": "node.cli.dns",
    "alias": "node.cli.alias",
    "group": "node.cli.group",
    "acl": "node.cli.acl",
    "import": "node.cli.importing",
    "undelete": "node.cli.undelete",
    "cluster": "node.cli.cluster",
    "log": "node.cli.log",
    "rebuild": "node.cli.rebuild",
    "search": "node.cli.search",
    "backup": "node.cli.backup",
    "restore": "node.cli.restore",
    "doctor": "node.cli.doctor",
    "certificate": "node.cli.certificate",
}


class Verbs(click.Group):
    """Finds verbs by the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(VERBS[cmd_name]).command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, readable=False),
    envvar="ANGARIUM_DIR",
    default=".",
    help="The site's folder [env ANGARIUM_DIR, else the current one].",
)
@click.version_option(package_name="angarium")
@click.pass_context
def main(ctx: click.Context, directory: Path) -> None:
    """Angarium: a mail server for several sites."""
    ctx.obj = directory
