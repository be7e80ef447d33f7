"""`angarium account`: people who sign in and have mail."""

import datetime
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import click

from node.cli import quota
from node.cli.client import Api, path, run
from node.cli.days import midnight
from node.cli.output import Work, show_list
from node.cli.shape import Complaint, answer, json_option

password_option = click.option(
    "--password-file",
    type=click.File("rb"),
    help="A file whose one line is the password; - reads it from standard input. Asked for if not given.",
)


@click.group()
def command() -> None:
    """People who sign in and have mail."""


@command.command()
@click.argument("address")
@password_option
@click.option("--no-password", is_flag=True, help="Nobody can sign in until `account passwd` sets one.")
@click.option("--shared", is_flag=True, help="Nobody ever signs in: its mailboxes are for those whom `acl set` names.")
@click.option("--name", default="", help="As people know it.")
@click.option("--admin", is_flag=True, help="May use the administration interface.")
@click.option("--partition", default="", help="Where the mail is kept; else the first one of this site.")
@json_option
@click.pass_obj
def add(  # click gives every option a parameter of its own
    directory: Path,
    address: str,
    password_file: IO[bytes] | None,
    no_password: bool,
    shared: bool,
    name: str,
    admin: bool,
    partition: str,
    as_json: bool,
) -> None:
    """Add an account with the standard mailboxes."""
    if no_password and password_file:
        raise click.UsageError("--no-password and --password-file exclude each other")
    if shared and password_file:
        raise click.UsageError("--shared and --password-file exclude each other: nobody signs in with a shared account")
    body = {"address": address, "name": name, "administrator": admin, "partition": partition, "shared": shared}
    if not no_password and not shared:
        body["password"] = _password(password_file)
    _tell(as_json, run(directory, lambda api: api.ask("POST", path("accounts"), body)), "added")


@command.command("list")
@click.option("--domain", default="", help="Of this domain only.")
@json_option
@click.pass_obj
def show_all(directory: Path, domain: str, as_json: bool) -> None:
    """All accounts, ordered by address."""
    items = run(directory, lambda api: api.pages(path("accounts"), domain=domain))
    cells = [(item["address"], item["name"], _standing(item), _amount(item)) for item in items]
    show_list(as_json, items, ("Address", "Name", "", "Mail"), cells)


@command.command()
@click.argument("address")
@json_option
@click.pass_obj
def show(directory: Path, address: str, as_json: bool) -> None:
    """One account."""
    item = run(directory, lambda api: api.ask("GET", path("accounts", address)))
    lines = [
        ("address", item["address"]),
        ("name", item["name"]),
        ("standing", _standing(item) or "person"),
        ("mail", _amount(item) or "not counted: it is kept at other sites"),
        ("quota", quota.shown_of_account(item)),
        ("password", "set" if item["has_password"] else "none: nobody can sign in with it"),
        ("app passwords", ", ".join(item["app_passwords"]) or "none"),
        ("POP3 offers", f"what arrived since {_day(item['pop3_since'])}" if item["pop3_since"] else "all"),
        ("sent mail", "filed in Sent" if item["file_sent"] else "left to the mail program to file"),
        ("id", item["id"]),
        ("partition", item["partition"]),
    ]
    answer(as_json, item, "\n".join(f"{label:<14} {value}" for label, value in lines))


@command.command("set")
@click.argument("address")
@click.option("--name", default=None, help="As people know it.")
@click.option("--admin/--no-admin", default=None, help="May use the administration interface, or not.")
@click.option(
    "--pop3-since",
    default=None,
    metavar="DATE",
    help="POP3 offers only mail that arrived on this day (UTC, YYYY-MM-DD) or later; none = all.",
)
@click.option(
    "--file-sent",
    type=click.Choice(["on", "off"]),
    default=None,
    help="File mail that is submitted in the Sent mailbox; what the mail program files itself takes its place.",
)
@quota.quota_options("none, or domain: as its domain has it")
@json_option
@click.pass_obj
def change(  # click gives every option a parameter of its own
    directory: Path,
    /,
    address: str,
    name: str | None,
    admin: bool | None,
    pop3_since: str | None,
    file_sent: str | None,
    as_json: bool,
    **limits: str | None,
) -> None:
    """Change the name, who is an administrator, what POP3 offers, whether sent mail is filed, or how much mail there may be."""
    since = None if pop3_since is None else _midnight(pop3_since)
    filed = None if file_sent is None else file_sent == "on"
    wanted = (("name", name), ("administrator", admin), ("pop3_since", since), ("file_sent", filed))
    body = {key: value for key, value in wanted if value is not None} | quota.wanted(limits)
    if not body:
        raise click.UsageError("nothing to change: give --name, --admin, --no-admin, --pop3-since, --file-sent or a --quota")
    _change(directory, address, body, as_json, "changed")


@command.command()
@click.argument("address")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def remove(directory: Path, address: str, yes: bool, as_json: bool) -> None:
    """Remove an account and its mail."""
    if not yes and sys.stdin.isatty():
        click.confirm(f"Remove {address} and all its mail?", abort=True, err=True)
    run(directory, lambda api: api.ask("DELETE", path("accounts", address)))
    answer(as_json, {"removed": address}, f"{address} removed.")


@command.command()
@click.argument("address")
@password_option
@json_option
@click.pass_obj
def passwd(directory: Path, address: str, password_file: IO[bytes] | None, as_json: bool) -> None:
    """Set the password. App passwords stay; revoke them one by one."""
    body = {"password": _password(password_file)}
    run(directory, lambda api: api.ask("PUT", path("accounts", address, "password"), body))
    answer(as_json, {"changed": address}, f"The password of {address} is changed.")


@command.command()
@click.argument("address")
@json_option
@click.pass_obj
def suspend(directory: Path, address: str, as_json: bool) -> None:
    """Nobody can sign in; mail still arrives."""
    _change(directory, address, {"suspended": True}, as_json, "suspended")


@command.command()
@click.argument("address")
@json_option
@click.pass_obj
def resume(directory: Path, address: str, as_json: bool) -> None:
    """End a suspension."""
    _change(directory, address, {"suspended": False}, as_json, "resumed")


@command.command("import")
@click.argument("file", type=click.File("rb"))
@json_option
@click.pass_context
def import_file(ctx: click.Context, file: IO[bytes], as_json: bool) -> None:
    """Add the accounts of a CSV file with the header address,name,password[,admin]; - reads standard input.

    What fails is named with its line and stops nothing else; the exit code is then 1."""
    data = file.read()
    ctx.exit(1 if run(ctx.obj, lambda api: _import(api, data, as_json)) else 0)


async def _import(api: Api, data: bytes, as_json: bool) -> int:
    """How many lines failed."""
    added = failed = 0
    with Work(as_json) as work:
        async for line in api.lines("POST", path("accounts:import"), data):
            if line["kind"] == "progress" or as_json:
                work.show(line)
            if line["kind"] == "row":
                problem = line["problem"]
                added, failed = added + (problem is None), failed + (problem is not None)
                if problem is not None and not as_json:
                    who = line["address"] or "(no address)"
                    work.say(f"line {line['line']}: {who}: {problem['detail'].removeprefix(f'{who}: ')}")
    if not as_json:
        click.echo(f"{added} accounts added" + (f", {failed} lines failed" if failed else ""))
    return failed


@command.group("app-password")
def app_password() -> None:
    """Passwords for one device or program each, made here and revoked alone."""


@app_password.command("add")
@click.argument("address")
@click.argument("label")
@json_option
@click.pass_obj
def add_app_password(directory: Path, address: str, label: str, as_json: bool) -> None:
    """Make an app password; it is shown this once."""
    made = run(directory, lambda api: api.ask("POST", path("accounts", address, "app-passwords"), {"label": label}))
    answer(as_json, made, made["password"])


@app_password.command("list")
@click.argument("address")
@json_option
@click.pass_obj
def list_app_passwords(directory: Path, address: str, as_json: bool) -> None:
    """Labels of the app passwords."""
    items = run(directory, lambda api: api.ask("GET", path("accounts", address, "app-passwords")))["items"]
    show_list(as_json, items, ("Label",), [(item,) for item in items])


@app_password.command("revoke")
@click.argument("address")
@click.argument("label")
@json_option
@click.pass_obj
def revoke_app_password(directory: Path, address: str, label: str, as_json: bool) -> None:
    """Revoke an app password; the others stay."""
    run(directory, lambda api: api.ask("DELETE", path("accounts", address, "app-passwords", label)))
    answer(as_json, {"revoked": label}, f"{label} of {address} revoked.")


def _change(directory: Path, address: str, body: Mapping[str, object], as_json: bool, done: str) -> None:
    _tell(as_json, run(directory, lambda api: api.ask("PATCH", path("accounts", address), body)), done)


def _tell(as_json: bool, item: Any, done: str) -> None:
    answer(as_json, item, f"{item['address']} {done}." if item else "")


def _password(file: IO[bytes] | None) -> str:
    """From a file or standard input: one line, its end is not part of it. Else asked for twice, on a terminal."""
    if file is None:
        if not sys.stdin.isatty():
            raise click.UsageError("give the password with --password-file (- reads it from standard input)")
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    try:
        text = file.read().decode()
    except UnicodeDecodeError:
        raise Complaint(f"{file.name} is not UTF-8: write the password in UTF-8") from None
    password = text.removesuffix("\n").removesuffix("\r")
    if not password or "\n" in password:
        raise Complaint(f"{file.name} must hold the password in one line")
    return password


def _midnight(date: str) -> int:
    """Unix seconds when that day begins in UTC; of `none` 0."""
    return 0 if date == "none" else max(1, midnight(date, "--pop3-since", ", or none"))


def _day(at: int) -> str:
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return f"{moment:%Y-%m-%d}" if at % 86400 == 0 else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _standing(item: dict[str, Any]) -> str:
    words = [word for word in ("administrator", "suspended", "shared") if item[word]]
    return ", ".join(words)


def _amount(item: dict[str, Any]) -> str:
    if item["messages"] is None:
        return ""
    return f"{item['messages']} messages, {quota.size(item['size_bytes'] or 0)}"
