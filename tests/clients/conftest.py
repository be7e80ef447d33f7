"""One site for all tests of foreign clients, started as an operator would: `angarium init`, `angarium up`."""

import importlib.metadata
from collections.abc import Callable, Iterator

import pytest

from tests.clients.place import Person, Place, found, said, standing

Ran = Callable[[str, str], None]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with standing(tmp_path_factory.mktemp("clients") / "site") as there:
        yield there


@pytest.fixture
def person(place: Place) -> Person:
    """Somebody of this test alone."""
    return place.person()


@pytest.fixture
def ran(record_property: Callable[[str, object], None]) -> Ran:
    """Says, with the test's result and in the summary, which version of a client it used."""

    def record(client: str, version: str) -> None:
        record_property(f"client {client}", version)
        print(f"{client}: {version}")

    return record


@pytest.fixture
def mbsync(ran: Ran) -> str:
    path = found("mbsync", "isync")
    ran("mbsync", said(path, "--version").strip())
    return path


@pytest.fixture
def swaks(ran: Ran) -> str:
    path = found("swaks", "swaks")
    ran("swaks", said(path, "--version").splitlines()[0])
    if "TLS supported" not in said(path, "--support"):
        pytest.skip("swaks cannot speak TLS: apt-get install libnet-ssleay-perl")
    return path


@pytest.fixture
def curl(ran: Ran) -> str:
    path = found("curl", "curl")
    version = said(path, "--version")
    ran("curl", version.splitlines()[0])
    if "imaps" not in version or "smtps" not in version:
        pytest.skip("this curl was built without IMAP or SMTP: apt-get install curl")
    return path


@pytest.fixture
def neomutt(ran: Ran) -> str:
    path = found("neomutt", "neomutt")
    ran("neomutt", said(path, "-v").splitlines()[0])
    return path


@pytest.fixture
def tmux(ran: Ran) -> str:
    path = found("tmux", "tmux")
    ran("tmux", said(path, "-V").strip())
    return path


@pytest.fixture
def imapclient(ran: Ran) -> None:
    ran("imapclient", importlib.metadata.version("imapclient"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The versions of the clients that ran."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    versions = {pair for report in reports for pair in getattr(report, "user_properties", ())}
    lines = sorted(f"{name.removeprefix('client ')}: {version}" for name, version in versions if name.startswith("client "))
    if lines:
        terminalreporter.section("foreign clients that ran")
        for line in lines:
            terminalreporter.line(line)
