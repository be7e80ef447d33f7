"""`angarium restore`: a stopped site's folder filled from a backup."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import msgspec

from node import logs
from node.cli.output import Work
from node.cli.shape import Complaint, answer, json_option
from node.config import ConfigRefused, load
from node.supervisor import running_pid
from storage.overview import Progress

Restore = Callable[[Path, Path, Callable[[Progress], None]], Awaitable[None]]


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True, file_okay=False))
@json_option
@click.pass_obj
def command(directory: Path, source: Path, as_json: bool) -> None:
    """Restore the backup in SOURCE into the site's folder, while the site is stopped. It starts a new epoch then.

    With --json one object a line."""
    try:
        # Imported when it is used, like the verbs: it brings the engines along.
        restore: Restore = importlib.import_module("node.restore").restore
        # A folder without a site gets the configuration that the backup holds.
        if (directory / "angarium.toml").exists():
            config = load(directory)
            logs.set_up("warning", config.log_format)
            if (pid := running_pid(config.run_dir)) is not None:
                raise Complaint(f"the site at {directory} is running (pid {pid}): stop it first")
        else:
            logs.set_up("warning", "auto")
        with Work(as_json) as work:

            def show(progress: Progress) -> None:
                work.show(msgspec.to_builtins(progress))

            asyncio.run(_awaited(restore(source.absolute(), directory.absolute(), show)))
    except ConfigRefused as error:
        raise Complaint(str(error)) from None
    except OSError as error:
        raise Complaint(f"{error.filename or directory}: {error.strerror or error}") from None
    text = f"Restored from {source}: start it with `angarium up {directory}`."
    answer(as_json, {"kind": "finished", "source": str(source)}, text)


async def _awaited(work: Awaitable[None]) -> None:
    await work
