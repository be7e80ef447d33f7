"""`angarium up`: runs a site in the foreground, and tells what happens."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from node import logs
from node.cli.shape import Complaint, json_option
from node.config import Config, ConfigRefused, DemoPerson, load, load_demo
from node.supervisor import Happening, StartFailed, supervise

COLOURS = {"ready": "green", "serving": "green", "ended": "red", "leftover": "yellow"}


@click.command()
@click.argument("site_dir", metavar="[DIRECTORY]", type=click.Path(path_type=Path, readable=False), required=False)
@click.option(
    "--ready-file", type=click.Path(path_type=Path, readable=False), help="Written when every listener answers."
)
@json_option
@click.pass_obj
def command(directory: Path, site_dir: Path | None, ready_file: Path | None, as_json: bool) -> None:
    """Run the site in DIRECTORY until SIGTERM or Ctrl-C: engines, workers, listeners."""
    where = site_dir or directory
    try:
        config = load(where)
        tell = _json_lines if as_json else _lines(config, load_demo(config.demo_file))
        logs.set_up(config.log_level, config.log_format)
        asyncio.run(supervise(config, tell, ready_file.absolute() if ready_file else None))
    except (ConfigRefused, StartFailed) as error:
        raise Complaint(str(error)) from None
    except OSError as error:
        raise Complaint(f"{error.filename or where}: {error.strerror or error}: run `angarium doctor`") from None


def _json_lines(happening: Happening) -> None:
    click.echo(json.dumps(msgspec.to_builtins(happening)))


def _lines(config: Config, people: tuple[DemoPerson, ...]) -> Callable[[Happening], None]:
    """For people: one line a happening, in colour on a terminal, and at the end where to point a mail client."""
    console = Console(highlight=False, soft_wrap=True)

    def tell(happening: Happening) -> None:
        console.print(_line(happening), style=COLOURS.get(happening.what), markup=False)
        if happening.what == "serving":
            if not config.witness:
                console.print(client_table(config, people))
            console.print("Ctrl-C stops it; everything acknowledged stays.", style="dim")

    return tell


def _line(happening: Happening) -> str:
    line = f"{happening.part:<10} {happening.what}"
    if happening.what == "ready":
        line += f" after {happening.seconds:.1f} s (pid {happening.pid})"
    if happening.detail:
        line += f": {happening.detail}"
    if happening.what == "ended":
        line += f"; again in {happening.seconds:.1f} s"
    return line


def client_table(config: Config, people: tuple[DemoPerson, ...]) -> Table:
    """Where to point a mail client."""
    host = "127.0.0.1" if config.bind in ("0.0.0.0", "127.0.0.1") else config.bind  # noqa: S104 (compared, not bound)
    if config.bind in ("0.0.0.0", "::"):  # noqa: S104
        host = config.hostname
    rows = [
        ("IMAP, to read", _door(host, config.ports.imaps, "TLS"), _door(host, config.ports.imap, "STARTTLS")),
        ("POP3, to take away", _door(host, config.ports.pop3s, "TLS"), _door(host, config.ports.pop3, "STLS")),
        (
            "SMTP, to send",
            _door(host, config.ports.submissions, "TLS"),
            _door(host, config.ports.submission, "STARTTLS"),
        ),
        ("SMTP, from others", _door(host, config.ports.smtp, "STARTTLS"), ""),
        ("HTTP, to manage", _door(host, config.ports.https, "TLS"), _door(host, config.ports.http, "plain")),
        ("Trust this CA", str(config.tls.ca), ""),
    ]
    rows += [(person.name, person.address, f"password {person.password}") for person in people]
    table = Table(title=f"Site {config.site}, {config.domain}", show_header=False, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


def _door(host: str, port: int, how: str) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{port} {how}" if port else ""
