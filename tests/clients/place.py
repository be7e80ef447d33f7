"""A running site as foreign clients meet it: ports, people, the certificate that they are told to trust."""

import itertools
import json
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, time  # noqa: TID251  # of the tokens that a client shows
from typing import Any, NamedTuple

from imapclient import IMAPClient

from node.config import Config, load
from tests import issuer as issuing
from tests import live
from tests.issuer import Issuer

PLAINTEXT_ADDRESS = "127.0.0.2"  # the one from which this site takes passwords without TLS
STRANGER = "stranger@elsewhere.example"
CLIENT_S_MAX = 60.0
APPENDED_AT_ONCE_MAX = 100  # what the site takes in one MULTIAPPEND
MESSAGE_BYTES_MAX = 1 << 20  # below the 1 MiB that a client's tools can be asked to carry quickly


class Person(NamedTuple):
    address: str
    password: str

    @property
    def local(self) -> str:
        return self.address.partition("@")[0]


class Place:
    """Where the site is; `smarthost_port`: where its relay looks for the smarthost; `issuer`: whose tokens it takes."""

    def __init__(self, config: Config, process: "subprocess.Popen[str]", smarthost_port: int, issuer: Issuer) -> None:
        self.config, self.process, self.smarthost_port, self.issuer = config, process, smarthost_port, issuer
        self._people = itertools.count(1)

    @property
    def ca(self) -> str:
        return str(self.config.tls.ca)

    def person(self) -> Person:
        """One whom no other test has."""
        number = next(self._people)
        person = Person(f"person{number}@{self.config.domain}", f"a passphrase for {number}")
        self.ask("POST", "accounts", {"address": person.address, "password": person.password, "name": person.local})
        return person

    def ask(self, method: str, path: str, body: object) -> None:
        """What an administrator asks by HTTP."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.config.ports.http}/api/v1/{path}",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.config.api_token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=CLIENT_S_MAX) as answer:  # noqa: S310 - an address of our own
            assert answer.status in (200, 201)

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)

    @contextmanager
    def imap(self, person: Person) -> Iterator[Any]:
        """imapclient over TLS, signed in, INBOX selected."""
        port = self.config.ports.imaps
        client = IMAPClient("localhost", port, ssl_context=self.trust(), timeout=CLIENT_S_MAX)
        try:
            # imaplib sends an APPEND in pieces: without this each waits 40 ms for the acknowledgement of the one before
            client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.login(person.address, person.password)
            client.select_folder("INBOX")
            yield client
        finally:
            client.shutdown()

    @contextmanager
    def submission(self, person: Person) -> Iterator[smtplib.SMTP]:
        """smtplib on the submission port, under STARTTLS, signed in."""
        with smtplib.SMTP("localhost", self.config.ports.submission, timeout=CLIENT_S_MAX) as server:
            server.starttls(context=self.trust())
            server.login(person.address, person.password)
            yield server

    def deliver(self, person: Person, *messages: bytes) -> None:
        """By LMTP on the unix socket. Returns when they stand in INBOX: LMTP answers when the log has a message, a
        moment before the tables show it."""
        assert self.config.lmtp_socket is not None
        with self.imap(person) as client:
            before = self.count(client)
            with smtplib.LMTP(str(self.config.lmtp_socket), timeout=CLIENT_S_MAX) as server:
                for message in messages:
                    assert server.sendmail(STRANGER, [person.address], message, ["BODY=8BITMIME"]) == {}
            self.until(client, before + len(messages))

    def count(self, client: Any, mailbox: str = "INBOX") -> int:
        return int(client.folder_status(mailbox, ["MESSAGES"])[b"MESSAGES"])

    def until(self, client: Any, count: int, mailbox: str = "INBOX") -> None:
        """Asks until the mailbox has so many messages."""
        end = monotonic() + CLIENT_S_MAX
        while (there := self.count(client, mailbox)) < count:
            assert monotonic() < end, f"{there} of {count} messages in {mailbox}"

    def append(self, person: Person, messages: Iterable[bytes], mailbox: str = "INBOX") -> None:
        """By MULTIAPPEND."""
        waiting = list(messages)
        with self.imap(person) as client:
            for start in range(0, len(waiting), APPENDED_AT_ONCE_MAX):
                _, (answer,) = client.multiappend(mailbox, waiting[start : start + APPENDED_AT_ONCE_MAX])
                assert b"[APPENDUID" in answer, answer

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


@contextmanager
def standing(directory: Any) -> Iterator[Place]:
    """A site with a smarthost that is not there yet, until the block ends."""
    config = live.init(directory)
    live.configure(config, "plaintext_networks = []", f'plaintext_networks = ["{PLAINTEXT_ADDRESS}/32"]')
    live.configure(config, "# message_bytes_max = 52428800", f"message_bytes_max = {MESSAGE_BYTES_MAX}")
    smarthost = live.port_base()
    text = f'[smarthost]\nhost = "127.0.0.1"\nport = {smarthost}\ntls = "none"\n\n'
    issuer = Issuer(time())
    (config.dir / "keys.json").write_bytes(issuer.jwks())
    text += f'[oauth]\nissuer = "{issuing.NAME}"\naudience = "{issuing.AUDIENCE}"\njwks = "keys.json"'
    live.configure(config, "# [smarthost]", text + "\n#")
    config = load(directory)
    with live.running(config) as process:
        yield Place(config, process, smarthost, issuer)


def found(command: str, package: str) -> str:
    """The path of a foreign client, or a skip that names its Debian package."""
    import pytest

    path = shutil.which(command)
    if path is None:
        pytest.skip(f"{command} is not here: apt-get install {package}")
    return path


def said(*command: str, given: bytes | None = None, status: int | None = 0) -> str:
    """Runs a client; what it said on both outputs. `status`: the exit code it must have, None = any."""
    done = subprocess.run(command, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=CLIENT_S_MAX)
    text = done.stdout.decode("utf-8", "replace")
    assert status is None or done.returncode == status, f"{command}: exit {done.returncode}\n{text}"
    return text
