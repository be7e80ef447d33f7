"""`angarium import`: mail of another system into accounts of a running site."""

import asyncio
import secrets
import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import aiohttp
import click

from node.cli.client import Api, path, run
from node.cli.import_shown import Shown
from node.cli.shape import Complaint, json_option
from node.config import ConfigRefused, load
from node.importing.bringing import Bringing, BringingStopped, Outcome, Wanted, planned
from node.importing.imap import TLS, ImapSource, Server
from node.importing.journal import KEY_BYTES, Journal, JournalTaken
from node.importing.maildir import MaildirSource
from node.importing.many import PORTS, ListUnreadable, parsed, source_of
from node.importing.mbox import QUOTINGS, MboxSource
from node.importing.model import Source, SourceUnreadable

JOBS_DEFAULT = 4
JOBS_MAX = 32
INTERRUPTED = 130  # as shells say it of Ctrl-C

F = TypeVar("F", bound=Callable[..., Any])


class How(NamedTuple):
    """What every kind of import is told. `limit_bytes`: of a message, as the site has it."""

    directory: Path
    renames: Mapping[str, str]
    only_plan: bool
    again: bool
    as_json: bool
    limit_bytes: int


class Job(NamedTuple):
    address: str
    source: Source


def import_options(function: F) -> F:
    """Adds the options that all kinds share, given to the verb as **options: see `_how`."""
    for option in (
        click.option(
            "--map",
            "maps",
            multiple=True,
            metavar="OLD=NEW",
            help="The folder OLD becomes the mailbox NEW; OLD= leaves it out; repeat it.",
        ),
        click.option("--plan", is_flag=True, help="Only say what would be imported where."),
        click.option(
            "--again", is_flag=True, help="Forget what was imported before: what was moved or deleted here comes again."
        ),
    ):
        function = option(function)
    return json_option(function)


@click.group()
def command() -> None:
    """Bring in mail of another system, with dates and flags.

    What was imported before is not imported again, so the same command goes on where it was interrupted, and later brings
    what has come meanwhile. What cannot be imported is told line by line and stops nothing else; the exit code is then 1."""


@command.command()
@click.argument("address")
@click.argument("folder", type=click.Path(path_type=Path))
@import_options
@click.pass_obj
def maildir(directory: Path, /, address: str, folder: Path, **options: Any) -> None:
    """Import a Maildir and its folders (Maildir++, or Dovecot's layout fs) into the account ADDRESS."""
    how = _how(directory, options)
    _finish(how, [Job(address, MaildirSource(folder, how.limit_bytes))], 1)


@command.command()
@click.argument("address")
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--into", default="", metavar="NAME", help="The mailbox for all of them; else each goes into one named as its file."
)
@click.option(
    "--quoting",
    type=click.Choice(QUOTINGS),
    default="rd",
    show_default=True,
    help='How ">From" is meant: mboxrd, mboxo.',
)
@import_options
@click.pass_obj
def mbox(directory: Path, /, address: str, files: tuple[Path, ...], into: str, quoting: str, **options: Any) -> None:
    """Import mbox FILES into the account ADDRESS."""
    how = _how(directory, options)
    _finish(how, [Job(address, MboxSource(files, into, how.limit_bytes, quoting))], 1)


@command.command()
@click.argument("address")
@click.option("--host", required=True, help="The IMAP server.")
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="Else 993, or 143 without implicit TLS.")
@click.option("--user", required=True, help="The name to sign in with there.")
@click.option(
    "--password-file",
    type=click.File("rb"),
    required=True,
    help="Its first line is the password there (- = standard input).",
)
@click.option(
    "--tls", type=click.Choice(TLS), default="implicit", show_default=True, help="How the connection is kept secret."
)
@click.option("--no-verify", is_flag=True, help="Take any certificate.")
@import_options
@click.pass_obj
def imap(  # click gives every option a parameter of its own
    directory: Path,
    /,
    address: str,
    host: str,
    port: int | None,
    user: str,
    password_file: IO[bytes],
    tls: str,
    no_verify: bool,
    **options: Any,
) -> None:
    """Import a remote IMAP account into the account ADDRESS. Nothing is changed there."""
    how = _how(directory, options)
    server = Server(host, port or PORTS[tls], user, _password(password_file), tls, not no_verify)
    _finish(how, [Job(address, ImapSource(server, how.limit_bytes))], 1)


@command.command()
@click.argument("file", type=click.File("rb"))
@click.option(
    "--jobs", type=click.IntRange(1, JOBS_MAX), default=JOBS_DEFAULT, show_default=True, help="Accounts at once."
)
@click.option("--no-verify", is_flag=True, help="Take any certificate of IMAP servers.")
@import_options
@click.pass_obj
def many(directory: Path, /, file: IO[bytes], jobs: int, no_verify: bool, **options: Any) -> None:
    """Import many accounts from a CSV FILE (- = standard input).

    Its first line names the columns: address,kind,source and, where used, user,password,port,tls,into. kind is maildir, mbox
    (source: a path) or imap (source: the server)."""
    how = _how(directory, options)
    try:
        rows = parsed(file.read().decode())
    except (ListUnreadable, UnicodeDecodeError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise Complaint(f"{file.name}: {why}") from None
    _finish(how, [Job(row.address, source_of(row, how.limit_bytes, verify=not no_verify)) for row in rows], jobs)


def _how(directory: Path, options: Mapping[str, Any]) -> How:
    renames = {}
    for pair in options["maps"]:
        old, equals, new = pair.partition("=")
        if not equals or not old:
            raise click.UsageError(f"--map is OLD=NEW, not {pair!r}")
        renames[old] = new
    try:
        limit_bytes = load(directory).limits.message_bytes_max
    except ConfigRefused as error:
        raise Complaint(str(error)) from None
    return How(directory, renames, options["plan"], options["again"], options["as_json"], limit_bytes)


def _finish(how: How, jobs: list[Job], at_once: int) -> None:
    with Shown(how.as_json) as shown:
        try:
            whole = run(how.directory, lambda api: _all(api, how, jobs, at_once, shown))
        except KeyboardInterrupt:
            shown.say("interrupted: the same command goes on where this one was")
            sys.exit(INTERRUPTED)
    shown.total(whole, len(jobs), only_plan=how.only_plan)
    sys.exit(1 if whole.refused or whole.failed else 0)


async def _all(api: Api, how: How, jobs: list[Job], at_once: int, shown: Shown) -> Outcome:
    """One account after another in each of `at_once` lanes; the same account never in two at once."""
    lanes = asyncio.Semaphore(at_once)
    alone: dict[str, asyncio.Lock] = {job.address.casefold(): asyncio.Lock() for job in jobs}

    async def one(job: Job) -> Outcome:
        async with alone[job.address.casefold()], lanes:
            try:
                return await _one(api, how, job, shown)
            except (Complaint, SourceUnreadable, BringingStopped) as error:
                return _stopped(shown, job, str(error.message if isinstance(error, Complaint) else error))
            except (aiohttp.ClientError, TimeoutError) as error:
                why = f"the site stopped answering: {str(error) or type(error).__name__}: import it again"
                return _stopped(shown, job, why)
            except OSError as error:
                return _stopped(shown, job, f"{error.strerror or error}: {error.filename or ''}")
            finally:
                await asyncio.to_thread(job.source.close)

    outcomes = await asyncio.gather(*(one(job) for job in jobs))
    return Outcome(*(sum(column) for column in zip(*outcomes, strict=True))) if outcomes else Outcome()


async def _one(api: Api, how: How, job: Job, shown: Shown) -> Outcome:
    account = await api.ask("GET", path("accounts", job.address))
    wanted = Wanted(account["address"], how.renames)
    if how.only_plan:
        plan = await planned(api, job.source, wanted)
        shown.plan(account["address"], [(one.folder.where, one.mailbox, one.messages) for one in plan])
        return Outcome(imported=sum(one.messages for one in plan))
    with _journal(how, account) as journal:
        outcome = await Bringing(api, job.source, journal, wanted, shown).run()
    shown.account(account["address"], outcome)
    return outcome


@contextmanager
def _journal(how: How, account: Mapping[str, Any]) -> Any:
    file = how.directory / "imports" / f"{account['id']}.journal"
    try:
        with Journal(file, secrets.token_bytes(KEY_BYTES), again=how.again) as journal:
            yield journal
    except JournalTaken:
        raise Complaint(f"another import into {account['address']} is under way: wait for its end") from None


def _stopped(shown: Shown, job: Job, why: str) -> Outcome:
    shown.refused(job.address, "", why)
    return Outcome(failed=1)


def _password(file: IO[bytes]) -> str:
    try:
        password = file.read().decode().split("\n", 1)[0].removesuffix("\r")
    except UnicodeDecodeError:
        raise Complaint(f"{file.name} is not UTF-8: write the password in UTF-8") from None
    if not password:
        raise Complaint(f"{file.name} must hold the password in its first line")
    return password
