"""`angarium certificate`: the server certificate of the site's own authority."""

import asyncio
import datetime
import os
import signal
from pathlib import Path

import click

from node.certs import Certificate
from node.cli.shape import Complaint, answer, json_option
from node.config import ConfigRefused, load
from node.entering import renew as renew_by_token
from node.init import renew_certificate
from node.supervisor import running_pid
from node.tokens import TokenRefused, read


@click.group()
def command() -> None:
    """Certificates of the site."""


@command.command()
@click.option("--token", "text", help="At a site that joined: from `angarium cluster token --renew` at the first site.")
@json_option
@click.pass_obj
def renew(directory: Path, text: str | None, as_json: bool) -> None:
    """Issue a new server certificate; a running site takes it at once, without dropping sessions."""
    try:
        config = load(directory)
        now = datetime.datetime.now(datetime.UTC)
        if text is not None:
            asyncio.run(renew_by_token(config, read(text), now))
        else:
            renew_certificate(config, now)
    except (ConfigRefused, TokenRefused) as error:
        raise Complaint(str(error)) from None
    pid = running_pid(config.run_dir)
    if pid is not None:
        os.kill(pid, signal.SIGHUP)
    until = Certificate(config.tls.certificate, config.tls.key).valid_until.isoformat()
    told = "; the running site was told" if pid is not None else ""
    answer(as_json, {"certificate": str(config.tls.certificate), "valid_until": until}, f"Valid until {until}{told}.")
