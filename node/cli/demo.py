"""`angarium demo`: three sites on this machine, one of them killed in the middle of the mail."""

import asyncio
import contextlib
import datetime
import shutil
import signal
import tempfile
from pathlib import Path

import click
import msgspec
from rich.console import Console

from node import logs
from node.cli.shape import Complaint, json_option
from node.config import PORT_BASE_MAX, ConfigRefused
from node.demo.page import Page, verdict_table
from node.demo.place import NAMES, PORT_BASES, DemoFailed, Sites
from node.demo.story import Story
from node.demo.verdict import Verdict

INTERRUPTED = 130  # as a shell has it


@click.command()
@click.argument("folder", metavar="[DIRECTORY]", type=click.Path(path_type=Path, readable=False), required=False)
@click.option("--port-bases", default=",".join(map(str, PORT_BASES)), show_default=True, help="One for each site.")
@click.option("--messages", type=click.IntRange(50), default=600, show_default=True, help="At least so many are sent.")
@click.option(
    "--durability",
    type=click.Choice(["remote", "local"]),
    default="remote",
    show_default=True,
    help="Whether an acknowledgement waits for the other sites, or comes back with the site that was killed.",
)
@click.option("--keep", is_flag=True, help="Leave the sites' folders, to be started by `angarium up`.")
@json_option
def command(folder: Path | None, port_bases: str, messages: int, durability: str, keep: bool, as_json: bool) -> None:
    """Show three sites on this machine: mail flows, one site is killed, another follows it, it comes home again.

    In a folder of its own, which is deleted at the end, or in DIRECTORY, which must not be there yet. With --json the last
    line of standard output is the verdict. Exit code 0 only if nothing was lost, doubled or renumbered."""
    if folder is not None and folder.exists():
        raise Complaint(f"{folder} is there already: delete it, or choose another folder")
    home = folder.absolute() if folder is not None else Path(tempfile.mkdtemp(prefix="angarium-demo-"))
    logs.set_up("error", "auto")  # what the sites say is in their own folders
    try:
        verdict = asyncio.run(_shown(home, _bases(port_bases), messages, durability, as_json))
    except (DemoFailed, ConfigRefused) as error:
        raise Complaint(f"{error}{_where(home) if keep else ''}") from None
    except OSError as error:
        raise Complaint(f"{error.filename or home}: {error.strerror or error}") from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        click.echo("angarium: stopped; nothing runs on", err=True)
        raise SystemExit(INTERRUPTED) from None
    finally:
        if not keep:
            shutil.rmtree(home, ignore_errors=True)
    _tell(verdict, as_json)
    if keep:
        click.echo(f"The sites are kept{_where(home)}: angarium up {home / NAMES[0]}", err=as_json)
    if not verdict.holds:
        raise SystemExit(1)


async def _shown(home: Path, bases: tuple[int, ...], messages: int, durability: str, as_json: bool) -> Verdict:
    loop = asyncio.get_running_loop()
    showing = asyncio.current_task()
    assert showing is not None

    def stop() -> None:
        if not showing.cancelling():
            showing.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    sites = await asyncio.to_thread(Sites, home, bases, datetime.datetime.now(datetime.UTC))
    try:
        async with Page(loop.time, quiet=as_json) as page:
            return await Story(sites, page, messages, durability, loop.time).run()
    finally:
        click.echo("All sites are being stopped.", err=True)
        await sites.stop()


def _bases(text: str) -> tuple[int, ...]:
    with contextlib.suppress(ValueError):
        found = tuple(int(word) for word in text.split(","))
        if len(found) == len(NAMES) and all(0 < base <= PORT_BASE_MAX for base in found):
            return found
    raise click.UsageError(f"--port-bases must be {len(NAMES)} numbers like 9000,17000,25000, not {text!r}")


def _where(home: Path) -> str:
    return f" in {home}"


def _tell(verdict: Verdict, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(verdict).decode())
        return
    console = Console(highlight=False)
    console.print(verdict_table(verdict))
    if verdict.holds:
        console.print(
            "Everything that was acknowledged is at every site, once, under the UID it had.", style="bold green"
        )
    else:
        console.print("A promise was not kept.", style="bold red")
