"""neomutt in a terminal, as a person would: reads the list, opens a message, answers it."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from tests.clients.place import CLIENT_S_MAX, Person, Place, said

CONFIGURATION = """\
set folder = "imaps://localhost:{ports.imaps}/"
set spoolfile = "+INBOX"
set imap_user = "{user}"
set imap_pass = "{password}"
set smtp_url = "smtp://{login}@localhost:{ports.submission}/"
set smtp_pass = "{password}"
set ssl_starttls = yes
set ssl_force_tls = yes
set certificate_file = "{ca}"
set from = "{user}"
set realname = "Reader"
set editor = "sed -i '1i An answer by neomutt.'"
set record = "+Sent"
set postponed = "+Drafts"
set mail_check = 1
set timeout = 1
set include = yes
set fast_reply = yes
set autoedit = yes
set sort = date
"""

MESSAGE = """\
From: Ann Other <{sender}>
To: {user}
Subject: =?utf-8?q?Caf=C3=A9?= {n}
Message-ID: <question{n}@example.org>
Date: Tue, 24 Nov 2026 10:0{n}:00 +0000
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Shall we meet at the Caf\N{LATIN SMALL LETTER E WITH ACUTE}?
"""


class Terminal:
    """A tmux server of its own with one window."""

    def __init__(self, tmux: str, socket: Path) -> None:
        self._tmux = (tmux, "-S", str(socket), "-f", "/dev/null")

    def open(self, command: str) -> None:
        said(*self._tmux, "new-session", "-d", "-x", "120", "-y", "40", command)

    def close(self) -> None:
        said(*self._tmux, "kill-server", status=None)

    def keys(self, *keys: str) -> None:
        said(*self._tmux, "send-keys", *keys)

    def shows(self, text: str) -> str:
        """The screen, when the text is on it."""
        end = monotonic() + CLIENT_S_MAX
        while text not in (screen := said(*self._tmux, "capture-pane", "-p")):
            assert monotonic() < end, f"{text!r} does not come:\n{screen}"
        return screen


@pytest.fixture
def terminal(tmux: str, neomutt: str, place: Place, person: Person, tmp_path: Path) -> Iterator[Terminal]:
    file, home = tmp_path / "muttrc", tmp_path / "home"
    home.mkdir()
    login = person.address.replace("@", "%40")
    settings = CONFIGURATION.format(
        ports=place.config.ports, user=person.address, login=login, password=person.password, ca=place.ca
    )
    file.write_text(settings)
    window = Terminal(tmux, tmp_path / "tmux")
    environment = f"env -i HOME={shlex.quote(str(home))} TERM=screen LANG=C.UTF-8 PATH=/usr/bin:/bin"
    window.open(f"{environment} {neomutt} -n -F {shlex.quote(str(file))}")
    yield window
    window.close()


def test_the_list_a_message_and_an_answer(terminal: Terminal, place: Place, person: Person) -> None:
    other = place.person()
    terminal.shows("Msgs:0")
    messages = (MESSAGE.format(n=n, sender=other.address, user=person.address) for n in range(3))
    place.deliver(person, *[message.replace("\n", "\r\n").encode() for message in messages])
    terminal.shows("New:3")  # told of new mail while it stands on the list
    screen = terminal.shows("Café 2")
    assert [line.split()[-2:] for line in screen.splitlines() if "Ann Other" in line] == [
        ["Café", "0"], ["Café", "1"], ["Café", "2"]
    ]  # fmt: skip
    terminal.keys("2", "Enter", "Enter")  # jumps to the second, and opens it
    screen = terminal.shows("Shall we meet at the Café?")
    assert "Subject: Café 1" in screen
    terminal.keys("r")
    screen = terminal.shows("y:Send")
    assert f"Ann Other <{other.address}>" in screen and "Re: Café 1" in screen
    terminal.keys("y")
    terminal.shows("Mail sent")
    with place.imap(other) as client:
        place.until(client, 1)
        client.noop()
        (answer,) = client.fetch([1], ["ENVELOPE", "BODY[TEXT]"]).values()
        assert answer[b"ENVELOPE"].in_reply_to == b"<question1@example.org>"
        assert b"An answer by neomutt." in answer[b"BODY[TEXT]"]
    terminal.keys("q", "$")  # back to the list, which is then synchronized
    with place.imap(person) as client:
        place.until(client, 1, "Sent")
        end = monotonic() + CLIENT_S_MAX
        while not (answered := client.search(["ANSWERED"])):
            assert monotonic() < end, "no message is marked as answered"
        (data,) = client.fetch(answered, ["ENVELOPE"]).values()
        assert data[b"ENVELOPE"].message_id == b"<question1@example.org>"
