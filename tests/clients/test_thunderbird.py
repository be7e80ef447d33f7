"""Thunderbird on a screen that nobody sees, as a person would use it: an address and a password are typed, the account sets
itself up by autoconfig, a message is read and answered. Minutes of a processor: `make test-thunderbird`.

It looks for its settings at http://autoconfig.DOMAIN/ (port 80). The site's own port for HTTP stands in for that as a proxy.
"""

import base64
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from tests.clients.conftest import Ran
from tests.clients.marionette import Marionette
from tests.clients.place import CLIENT_S_MAX, Person, Place, found, said
from tests.live import REPOSITORY, port_base

PROGRAM_S_MAX = 120.0
LOOK_EVERY_S = 0.2
SCREENSHOTS = REPOSITORY / "var" / "screenshots"
PREFERENCES = """\
user_pref("network.proxy.type", 1);
user_pref("network.proxy.http", "127.0.0.1");
user_pref("network.proxy.http_port", {http});
user_pref("network.dns.localDomains", "{hostname}");
user_pref("marionette.port", {marionette});
user_pref("mail.shell.checkDefaultClient", false);
user_pref("mail.warn_on_send_accel_key", false);
user_pref("mailnews.start_page.enabled", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("datareporting.policy.dataSubmissionPolicyBypassNotification", true);
user_pref("app.update.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
"""
MESSAGE = """\
From: Ben <{sender}>
To: Anna <{to}>
Subject: =?utf-8?q?Caf=C3=A9?= {n}
Message-ID: <question{n}@example.org>
Date: Tue, 24 Nov 2026 10:0{n}:00 +0000
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

Shall we meet at the Café?
"""
TRUST = """
const known = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
known.addCertFromBase64(arguments[0], "CT,,");
"""
# What stands on the screen under an id, also within the shadow of another element.
VISIBLE = """
const look = root => {
    for (const one of root.querySelectorAll("*")) {
        const within = one.shadowRoot && look(one.shadowRoot);
        if (within) return within;
        if (one.id == arguments[0] && one.getClientRects().length) return one;
    }
};
const seen = look(document);
"""
SHOWN = """
const pane = document.getElementById("tabmail").currentAbout3Pane;
const message = pane.messageBrowser.contentWindow.getMessagePaneBrowser().contentDocument;
return [pane.gFolder?.prettyName ?? "", pane.gDBView?.rowCount ?? 0, message?.body?.textContent ?? ""];
"""
WINDOWS = "return [...Services.wm.getEnumerator(null)].map(one => one.location.href.split('/').at(-1));"


class Screen:
    """An X server without a screen, and Thunderbird on it."""

    def __init__(self, display: str, program: Marionette) -> None:
        self._environment = {**os.environ, "DISPLAY": display}
        self.program = program

    def keys(self, *words: str) -> None:
        subprocess.run(("xdotool", *words), env=self._environment, check=True, timeout=CLIENT_S_MAX)

    def front(self, title: str) -> None:
        """There is nobody else here who gives a window the keyboard."""
        search = ("xdotool", "search", "--sync", "--onlyvisible", "--name", title)
        numbers = subprocess.run(search, env=self._environment, check=True, timeout=CLIENT_S_MAX, capture_output=True).stdout
        window = numbers.split()[-1].decode()
        self.keys("windowraise", window, "windowfocus", "--sync", window)

    def types(self, text: str) -> None:
        self.keys("type", "--delay", "30", text)

    def picture(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        file = str(SCREENSHOTS / f"thunderbird-{name}.png")
        subprocess.run(("import", "-window", "root", file), env=self._environment, check=True, timeout=CLIENT_S_MAX)
        print(f"screenshot: {file}")

    def until(self, what: str, is_so: Callable[[], object]) -> None:
        end = monotonic() + PROGRAM_S_MAX
        while not is_so():
            threading.Event().wait(LOOK_EVERY_S)
            if monotonic() > end:
                self.picture("failed")
                raise AssertionError(f"{what}: not within {PROGRAM_S_MAX} s")

    def click(self, name: str) -> None:
        """The button of that id, once it can be clicked."""
        text = f"{VISIBLE} if (!seen || seen.disabled) return false; seen.click(); return true;"
        self.until(f"a button {name}", lambda: self.program.script(text, name))

    def fill(self, name: str, value: str) -> None:
        """By the keyboard, into the field of that id."""
        text = f"{VISIBLE} if (!seen) return false; seen.focus(); seen.select(); return true;"
        self.until(f"a field {name}", lambda: self.program.script(text, name))
        self.types(value)

    def says(self, text: str) -> None:
        """In the window for new accounts."""
        look = f"""
        const words = root => [...root.querySelectorAll("*")].map(one => one.shadowRoot ? words(one.shadowRoot) : "").join("")
            + (root.textContent ?? "");
        return words(document.querySelector("account-hub-container")?.shadowRoot ?? document.body).includes({text!r});
        """
        self.until(text, lambda: self.program.script(look))

    def shown(self) -> tuple[str, int, str]:
        """(folder, messages in its list, the open message's text)."""
        folder, rows, text = self.program.script(SHOWN)
        return str(folder), int(rows), str(text)


@contextmanager
def thunderbird(place: Place, home: Path) -> Iterator[Screen]:
    profile, port = home / "profile", port_base()
    profile.mkdir()
    config = place.config
    preferences = PREFERENCES.format(http=config.ports.http, hostname=config.hostname, marionette=port)
    (profile / "user.js").write_text(preferences)
    given, told = os.pipe()
    server = ("Xvfb", "-displayfd", str(told), "-screen", "0", "1280x900x24", "-nolisten", "tcp")
    log = (home / "log").open("w")
    with subprocess.Popen(server, pass_fds=(told,), stdout=log, stderr=log) as x:
        os.close(told)
        with os.fdopen(given) as number:
            display = f":{number.readline().strip()}"
        program = (
            "thunderbird", "--marionette", "--remote-allow-system-access", "--no-remote", "--profile", str(profile)
        )  # fmt: skip
        environment = {"HOME": str(home), "DISPLAY": display, "LANG": "C.UTF-8", "PATH": os.environ["PATH"]}
        try:
            # a script starts the program proper
            with subprocess.Popen(program, env=environment, stdout=log, stderr=log, start_new_session=True) as mail:
                try:
                    yield Screen(display, _spoken_to(port))
                finally:
                    os.killpg(mail.pid, signal.SIGKILL)
        finally:
            x.terminate()
    log.close()


def _spoken_to(port: int) -> Marionette:
    end = monotonic() + PROGRAM_S_MAX
    while True:
        try:
            return Marionette(port)
        except ConnectionRefusedError:
            assert monotonic() < end, "Thunderbird does not start"
            threading.Event().wait(LOOK_EVERY_S)  # a program of its own: there is nothing else to wait for


@pytest.mark.long
@pytest.mark.timeout(600)
def test_an_account_by_autoconfig_a_message_and_an_answer(place: Place, person: Person, ran: Ran, tmp_path: Path) -> None:
    for command in ("Xvfb", "xdotool", "import"):
        found(command, "xvfb xdotool imagemagick")
    ran("thunderbird", said(found("thunderbird", "thunderbird"), "--version").strip())
    other = place.person()
    place.deliver(person, MESSAGE.format(n=1, sender=other.address, to=person.address).replace("\n", "\r\n").encode())
    authority = "".join(line for line in Path(place.ca).read_text().splitlines() if "---" not in line)
    assert base64.b64decode(authority)
    with thunderbird(place, tmp_path) as screen:
        screen.program.script(TRUST, authority)
        _account(screen, person)
        _read_and_answered(screen)
        with place.imap(other) as client:
            place.until(client, 1)
            client.noop()
            (answer,) = client.fetch([1], ["ENVELOPE", "BODY[TEXT]"]).values()
            assert answer[b"ENVELOPE"].in_reply_to == b"<question1@example.org>"
            assert b"An answer by Thunderbird." in answer[b"BODY[TEXT]"]
        with place.imap(person) as client:
            place.until(client, 1, "Sent")
            screen.until("\\Answered", lambda: client.search(["ANSWERED", "SEEN"]) == [1])
        place.deliver(person, MESSAGE.format(n=2, sender=other.address, to=person.address).replace("\n", "\r\n").encode())
        screen.until("new mail, told of by IDLE", lambda: screen.shown()[1] == 2)
        screen.picture("list")


def _account(screen: Screen, person: Person) -> None:
    screen.fill("realName", "Anna")
    screen.fill("email", person.address)
    screen.click("forward")
    screen.says("Account settings found automatically.")
    screen.picture("found")
    screen.click("forward")
    screen.fill("password", person.password)
    screen.click("forward")
    screen.says("Add another email")
    screen.click("forward")


def _read_and_answered(screen: Screen) -> None:
    open_inbox = """
    const pane = document.getElementById("tabmail").currentAbout3Pane;
    const [account] = MailServices.accounts.accounts.filter(one => one.incomingServer.type == "imap");
    const inbox = account.incomingServer.rootFolder.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);
    if (inbox) pane.displayFolder(inbox.URI);
    return Boolean(inbox);
    """
    screen.until("an inbox", lambda: screen.program.script(open_inbox))
    screen.until("a message in the list", lambda: screen.shown()[1] == 1)
    screen.program.script("""
    const list = document.getElementById("tabmail").currentAbout3Pane.threadTree;
    list.focus();
    list.selectedIndex = 0;
    """)
    screen.until("its text", lambda: "Shall we meet at the Café?" in screen.shown()[2])
    screen.picture("message")
    screen.keys("key", "ctrl+r")
    screen.until("a window to write in", lambda: "messengercompose.xhtml" in screen.program.script(WINDOWS))
    ready = """
    const [write] = [...Services.wm.getEnumerator("msgcompose")];
    return Boolean(write.gMsgCompose?.editor) && write.document.activeElement?.id == "messageEditor";
    """
    screen.until("its editor", lambda: screen.program.script(ready))
    screen.front("^Write:")
    screen.types("An answer by Thunderbird.")
    screen.picture("answer")
    screen.keys("key", "ctrl+Return")
    screen.until("that it is sent", lambda: "messengercompose.xhtml" not in screen.program.script(WINDOWS))
