"""The verbs that speak to a running site: over real TLS to the real door, a directory in memory behind it."""

import asyncio
import datetime
import json
import os
import pty
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from cluster.domain.directory.state import Account
from cluster.domain.refusal import Reason, Refusal
from node.cli import main
from node.config import Config, load
from node.init import Plan, make_site
from node.offers import offers
from protocols.admin.door import Door
from protocols.admin.gate import Gate
from protocols.admin.health import Health
from protocols.admin.metrics import Metrics
from protocols.admin.port import Progress
from protocols.admin.server import start
from protocols.admin.session import Parts, application
from tests.contracts.admin_site import MemoryAdministration, MemorySite

GOOD = "correct horse battery"
START_S_MAX = 20.0
ANGARIUM = (sys.executable, "-c", "from node.cli import main; main()")


class Running:
    """A site in a thread of its own, as the command line makes its own event loop."""

    def __init__(self, directory: Path) -> None:
        plan = Plan(directory, "north", "example.org", "mail.example.org")
        self.directory = directory
        self._config = make_site(plan, datetime.datetime.now(datetime.UTC))
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self.site: MemorySite
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()))
        self._thread.start()
        assert self._ready.wait(START_S_MAX)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def ask(self, *words: str, given: str | bytes | None = None) -> Result:
        return CliRunner().invoke(main, ["--dir", str(self.directory), *words], input=given)

    def json(self, *words: str, given: str | None = None) -> Any:
        result = self.ask(*words, "--json", given=given)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    async def _serve(self) -> None:
        self.site = await MemorySite.with_domain()
        config = self._config
        administration = MemoryAdministration(self.site)
        door = Door(self.site, administration, self.site.credentials, offers=lambda: offers(config))
        parts = Parts(door, Gate(config.api_token, (), "north", "1"), Metrics("north", "1"), Health({}), "0.1.0")
        server = await start(application(parts), "127.0.0.1", None, 0, _tls(config))
        _set_port(self.directory, server.https_port)
        self._ready.set()
        await self._stop.wait()
        await server.stop()
        self.site.credentials.close()


def _tls(config: Config) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config.tls.certificate, config.tls.key)
    return context


def _set_port(directory: Path, port: int) -> None:
    file = directory / "angarium.toml"
    file.write_text(file.read_text().replace("[ports] ", f"[ports]\nhttps = {port}\n", 1))
    assert load(directory).ports.https == port


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("cli") / "site")
    with capture_logs():  # the site's own lines, which here come from the process of the command line
        yield running
    running.stop()


@pytest.fixture
def running(shared: Running) -> Running:
    """Every test begins with the one domain and nobody in it."""
    site = shared.site
    state, records = asyncio.run(_fresh())
    site.state, site.records[:] = state, records
    site.refuse_next = None
    return shared


async def _fresh() -> Any:
    fresh = await MemorySite.with_domain()
    fresh.credentials.close()
    return fresh.state, fresh.records


def complained(result: Result, *words: str) -> None:
    """One line on stderr, exit code 1, nothing on stdout."""
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("angarium: ") and result.stderr.count("\n") == 1, result.stderr
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


def test_accounts_by_hand(running: Running) -> None:
    result = running.ask("account", "add", "Anna@Example.org", "--password-file", "-", "--name", "Anna", "--admin", given=f"{GOOD}\n")
    assert (result.exit_code, result.stdout) == (0, "anna@example.org added.\n"), result.output
    kept = running.site.state.entries["anna@example.org"]
    assert isinstance(kept, Account) and kept.administrator and kept.verifier
    assert asyncio.run(running.site.credentials.verify([("password", kept.verifier)], kept.id, GOOD)) == "password"
    assert "administrator" in running.ask("account", "show", "anna@example.org").stdout
    assert running.json("account", "set", "anna@example.org", "--no-admin")["administrator"] is False
    assert running.json("account", "set", "anna@example.org", "--pop3-since", "2026-01-31")["pop3_since"] == 1769817600
    assert "what arrived since 2026-01-31" in running.ask("account", "show", "anna@example.org").stdout
    assert running.json("account", "set", "anna@example.org", "--file-sent", "on")["file_sent"] is True
    assert "filed in Sent" in running.ask("account", "show", "anna@example.org").output
    assert running.ask("account", "set", "anna@example.org", "--pop3-since", "yesterday").exit_code == 2
    assert running.json("account", "set", "anna@example.org", "--pop3-since", "none")["pop3_since"] == 0
    assert running.json("domain", "set", "example.org", "--quota", "1.5GiB")["quota_storage_bytes"] == 3 << 29
    assert "of 1.5 GiB; filling up at 90% (by its domain)" in running.ask("account", "show", "anna@example.org").stdout
    options = ("--quota", "10GB", "--quota-messages", "20000", "--quota-soft", "95%,80%")
    mine = running.json("account", "set", "anna@example.org", *options)
    assert (mine["quota_storage_bytes"], mine["quota_messages"], mine["quota_soft_percent"]) == (10**10, 20000, [80, 95])
    shown = running.ask("account", "show", "anna@example.org").stdout
    assert "0% used, of 9.3 GiB, 20000 messages; filling up at 80%, 95% (its own)" in shown
    mine = running.json("account", "set", "anna@example.org", "--quota", "none", "--quota-messages", "domain")
    assert (mine["quota_storage_bytes"], mine["quota_messages"]) == (0, 0)
    assert running.ask("account", "set", "anna@example.org", "--quota", "much").exit_code == 2
    assert "quota     1.5 GiB" in running.ask("domain", "show", "example.org").stdout
    assert running.json("account", "suspend", "anna@example.org")["suspended"] is True
    assert running.ask("account", "list").stdout == "anna@example.org\tAnna\tsuspended\t0 messages, 0 B\n"
    assert running.json("account", "resume", "anna@example.org")["suspended"] is False
    assert running.ask("account", "passwd", "anna@example.org", "--password-file", "-", given="another long one").exit_code == 0
    changed = running.site.state.entries["anna@example.org"]
    assert isinstance(changed, Account) and changed.verifier != kept.verifier
    assert running.json("account", "remove", "anna@example.org") == {"removed": "anna@example.org"}
    assert running.json("account", "list") == []


def test_a_password_comes_from_a_file_too_and_is_one_line(running: Running, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(GOOD.encode() + b"\r\n")
    assert running.ask("account", "add", "anna@example.org", "--password-file", str(file)).exit_code == 0
    file.write_bytes(b"one\ntwo\n")
    complained(running.ask("account", "passwd", "anna@example.org", "--password-file", str(file)), "one line")
    file.write_bytes(b"\xff\xfe")
    complained(running.ask("account", "passwd", "anna@example.org", "--password-file", str(file)), "UTF-8")
    assert running.json("account", "add", "ben@example.org", "--no-password")["has_password"] is False


def test_app_passwords(running: Running) -> None:
    running.json("account", "add", "anna@example.org", "--no-password")
    made = running.ask("account", "app-password", "add", "anna@example.org", "my phone/tablet?")
    assert made.exit_code == 0 and len(made.stdout.strip()) == 19
    assert running.json("account", "app-password", "list", "anna@example.org") == ["my phone/tablet?"]
    assert running.ask("account", "app-password", "revoke", "anna@example.org", "my phone/tablet?").exit_code == 0
    complained(running.ask("account", "app-password", "revoke", "anna@example.org", "my phone/tablet?"), "phone")


def test_domains(running: Running) -> None:
    assert running.json("domain", "add", "example.net", "--no-plus")["plus"] is False
    assert running.json("domain", "set", "example.net", "--catch-all", "anna@example.org")["catch_all"] == "anna@example.org"
    assert running.json("domain", "set", "example.net", "--catch-all", "")["catch_all"] == ""
    assert "plus      no" in running.ask("domain", "show", "example.net").stdout
    assert running.ask("domain", "list").stdout == "example.net\t\tno plus\nexample.org\t\tplus\n"
    assert running.ask("domain", "remove", "example.net").stdout == "example.net removed.\n"
    complained(running.ask("domain", "add", "not a domain"), "not a domain")
    complained(running.ask("domain", "show", "example.net"), "example.net")


def test_what_belongs_into_a_zone(running: Running) -> None:
    result = running.ask("dns")
    assert result.exit_code == 0, result.output
    line = "_imaps._tcp.example.org.       3600 IN SRV   10 0 993 mail.example.org."
    assert line in result.stdout.splitlines()
    said = running.json("dns", "Example.org")
    assert said["domain"] == "example.org" and said["zone"] == result.stdout
    complained(running.ask("dns", "elsewhere.example"), "elsewhere.example")


def test_aliases_and_groups(running: Running) -> None:
    running.json("account", "add", "anna@example.org", "--no-password")
    assert running.ask("alias", "add", "sales@example.org", "anna@example.org", "x@example.com").exit_code == 0
    assert running.ask("alias", "list").stdout == "sales@example.org\tanna@example.org, x@example.com\n"
    assert running.json("alias", "remove", "sales@example.org") == {"removed": "sales@example.org"}
    assert running.json("group", "add", "all@example.org", "anna@example.org", "--name", "All")["name"] == "All"
    assert running.json("group", "join", "all@example.org", "x@example.com", "y@example.com")[1:] == ["x@example.com", "y@example.com"]
    assert running.ask("group", "leave", "all@example.org", "anna@example.org", "x@example.com").exit_code == 0
    assert running.ask("group", "members", "all@example.org").stdout == "y@example.com\n"
    assert running.ask("group", "list").stdout == "all@example.org\tAll\t1\n"
    complained(running.ask("group", "join", "all@example.org", "all@example.org"), "all@example.org")
    assert running.ask("group", "remove", "all@example.org").exit_code == 0


def test_lists_are_whole_however_long(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.cli.client.PAGE", 2)
    for number in range(5):
        running.json("account", "add", f"p{number}@example.org", "--no-password")
    assert len(running.json("account", "list", "--domain", "example.org")) == 5


def test_an_import_tells_what_failed_and_goes_on(running: Running, tmp_path: Path) -> None:
    rows = [f"p{number}@example.org,P{number},a good long one" for number in range(40)]
    rows[7] = "p7@example.org,P7,short"
    rows[20] = "p20@nowhere.example,P20,a good long one"
    file = tmp_path / "people.csv"
    file.write_text("\n".join(["address,name,password", *rows, ""]))
    result = running.ask("account", "import", str(file))
    assert result.exit_code == 1
    assert result.stdout == "38 accounts added, 2 lines failed\n"
    failures = [line for line in result.stderr.splitlines() if line.startswith("line ")]
    assert failures[0].startswith("line 9: p7@example.org: ") and failures[1].startswith("line 22: p20@nowhere.example: ")
    assert len(failures) == 2 and "short," not in result.stderr
    assert len(running.json("account", "list")) == 38
    good = "address,name,password,admin\nzoe@example.org,Zoë,a good long one,yes\n"
    assert running.ask("account", "import", "-", given=good).exit_code == 0
    assert running.json("account", "show", "zoe@example.org")["name"] == "Zoë"
    complained(running.ask("account", "import", "-", given="a,b\n1,2\n"), "address,name,password")


def test_the_log_is_read_and_followed(running: Running) -> None:
    running.json("account", "add", "anna@example.org", "--password-file", "-", given=GOOD)
    lines = running.ask("log", "tail").stdout.splitlines()
    assert "DomainAdded.1" in lines[0] and "directory/1.2 AccountAdded.1 example.org by token admin 127.0.0.1" in lines[1]
    assert "verifier=(secret)" in lines[1] and "argon2" not in lines[1]
    assert running.json("log", "tail", "-n", "1")["position"] == "1.2"
    assert running.ask("log", "tail", "--after", "1.2").stdout == ""
    complained(running.ask("log", "tail", "--partition", "nowhere"), "nowhere")
    command = [*ANGARIUM, "--dir", str(running.directory), "log", "tail", "-f", "-n", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        # It begins with what comes; so something comes until it has seen something.
        seen: list[str] = []
        reader = threading.Thread(target=lambda: seen.append(following.stdout.readline() if following.stdout else ""))
        reader.start()
        number = 0
        while reader.is_alive() and number < 200:
            running.json("domain", "add", f"d{number}.example")
            reader.join(0.1)
            number += 1
        following.send_signal(2)
        assert following.wait(10) == 0
    assert json.loads(seen[0])["type"] == "DomainAdded.1"


def test_rebuild_and_backup_show_their_way(running: Running, tmp_path: Path) -> None:
    result = running.ask("rebuild")
    assert (result.exit_code, result.stdout) == (0, "The tables were rebuilt from the log.\n")
    assert result.stderr == "reading: 2 events\nexchange: 1 tables\n"
    lines = [json.loads(line) for line in running.ask("rebuild", "--json").stdout.splitlines()]
    assert [line["kind"] for line in lines] == ["progress"] * 3 + ["finished"]
    result = running.ask("backup", "monday")
    assert result.stdout == f"Backed up to {Path('monday').absolute()} and verified.\n"


def test_the_search_index_is_shown_and_thrown_away(running: Running) -> None:
    assert running.json("search", "show") == {"indexed": 0, "waiting": 0, "size_bytes": 0, "at": ""}
    made = running.directory / "search" / "1" / "2a-1"
    made.mkdir(parents=True)
    assert running.ask("search", "renew").exit_code == 0
    assert not made.exists() and made.parent.exists()  # the lock's folder stays


def test_work_that_fails_is_an_error(running: Running) -> None:
    steps = running.site.rebuild_steps
    running.site.rebuild_steps = (Progress("reading", 1, 2, "events"), Refusal(Reason.UNAVAILABLE, "the disk is full"))
    complained(running.ask("rebuild"), "the disk is full")
    running.site.rebuild_steps = steps


def test_progress_is_drawn_on_a_terminal(running: Running) -> None:
    command = [*ANGARIUM, "--dir", str(running.directory), "rebuild"]
    terminal, end = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=end, env=os.environ | {"TERM": "xterm", "COLUMNS": "100"}) as drawing:
        os.close(end)
        drawn = b""
        try:
            while chunk := os.read(terminal, 4096):
                drawn += chunk
        except OSError:  # its other end is closed: pty(7)
            pass
        assert drawing.wait(20) == 0
    os.close(terminal)
    assert "━".encode() in drawn and b"reading" in drawn and b"2/2" in drawn


def test_durable_and_not_shown_yet_is_no_failure(running: Running) -> None:
    running.site.refuse_next = Refusal(Reason.NOT_SHOWN_YET, "it is in the log; the tables follow")
    result = running.ask("domain", "add", "example.net")
    assert (result.exit_code, result.stdout) == (0, "") and "the tables follow" in result.stderr


def test_a_site_that_does_not_run(tmp_path: Path) -> None:
    make_site(Plan(tmp_path / "still", "south", "example.net", "mail.example.net", port_base=61000), datetime.datetime.now(datetime.UTC))
    result = CliRunner().invoke(main, ["--dir", str(tmp_path / "still"), "account", "list"])
    complained(result, "is not running: start it with `angarium up ")


def test_no_site_at_all_and_a_site_without_http(tmp_path: Path) -> None:
    complained(CliRunner().invoke(main, ["--dir", str(tmp_path), "domain", "list"]), "angarium init")
    make_site(Plan(tmp_path / "mute", "south", "example.net", "mail.example.net"), datetime.datetime.now(datetime.UTC))
    file = tmp_path / "mute" / "angarium.toml"
    file.write_text(file.read_text().replace("[ports] ", "[ports]\nhttps = 0\nhttp = 0\n", 1))
    complained(CliRunner().invoke(main, ["--dir", str(tmp_path / "mute"), "domain", "list"]), "give https a port")


def test_a_wrong_token_and_a_stranger_s_certificate(running: Running, tmp_path: Path) -> None:
    port = load(running.directory).ports.https
    config = make_site(Plan(tmp_path / "other", "south", "example.org", "mail.example.org"), datetime.datetime.now(datetime.UTC))
    _set_port(config.dir, port)
    complained(CliRunner().invoke(main, ["--dir", str(config.dir), "domain", "list"]), "not trusted")
    config.tls.ca.write_bytes(load(running.directory).tls.ca.read_bytes())
    complained(CliRunner().invoke(main, ["--dir", str(config.dir), "domain", "list"]), "token")


@pytest.mark.parametrize(
    "words",
    [
        ["account", "add"], ["account", "add", "a@example.org"], ["account", "set", "a@example.org"], ["domain", "set", "example.org"],
        ["alias", "add", "a@example.org"], ["log", "tail", "-n", "many"], ["account", "import", "/no/such/file"],
        ["account", "add", "a@example.org", "--no-password", "--password-file", "-"],
    ],
)  # fmt: skip
def test_bad_usage_is_exit_code_2(running: Running, words: list[str]) -> None:
    assert running.ask(*words).exit_code == 2


@pytest.mark.parametrize("verb", ["account", "domain", "alias", "group", "cluster", "log", "rebuild", "search", "backup"])
def test_every_verb_takes_json_and_has_help(verb: str) -> None:
    def leaves(command: Any) -> Iterator[Any]:
        for below in getattr(command, "commands", {}).values():
            yield from leaves(below)
        if not hasattr(command, "commands"):
            yield command

    found = list(leaves(main.get_command(None, verb)))  # type: ignore[arg-type]
    assert found
    for command in found:
        assert "as_json" in [parameter.name for parameter in command.params], command.name
        assert command.help, command.name
