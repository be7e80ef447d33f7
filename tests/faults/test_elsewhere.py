"""Mail that is not at every site: whoever signs in where it is not is carried to where it is. Real engines."""

import asyncio
import poplib
import smtplib
import urllib.request

import pytest

from tests.faults.clients import GONE, Imap
from tests.faults.site import Site
from tests.faults.test_sites import PASSWORD, message, person, signed_in

pytestmark = [pytest.mark.long, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

SETTLED_S_MAX = 30.0


async def appended(line: Imap, number: int) -> None:
    answer = await line.ask("APPEND INBOX", message(number))
    assert answer.state == "OK", answer


def introduced(address: str, *sites: Site) -> int:
    """How often somebody was introduced there."""
    text = "".join((site.config.dir / "up.log").read_text(errors="replace") for site in sites)
    return sum('"introduced"' in line and address in line for line in text.splitlines())


async def test_an_account_whose_mail_is_elsewhere_is_served_there(sites: list[Site]) -> None:
    pune, mumbai, dr = sites
    await asyncio.to_thread(pune.cli, "cluster", "partition", "add", "mail-apart", "--home", "mumbai", "--copies", "pune", "--yes")
    address = await person(pune, "zoe", "--partition", "mail-apart")
    line = await signed_in(dr, address)
    listed = await line.ask('LIST "" "*"')
    assert sum(b'"INBOX"' in row or b" INBOX" in row for row in listed.untagged) == 1
    await appended(line, 1)
    assert (await line.ask("SELECT INBOX")).state == "OK"
    (row, *_) = (await line.ask("UID FETCH 1 (UID BODY.PEEK[])")).untagged
    assert message(1) in row
    at_home = await signed_in(mumbai, address)
    there = await at_home.ask("STATUS INBOX (UIDVALIDITY UIDNEXT MESSAGES)")
    assert (await line.ask("STATUS INBOX (UIDVALIDITY UIDNEXT MESSAGES)")).untagged == there.untagged
    await line.begin_idle()
    await appended(at_home, 2)
    while b"2 EXISTS" not in (news := await line.news()):
        assert news.startswith(b"* "), news
    assert introduced(address, mumbai) == 1 and introduced(address, pune) == 0

    await mumbai.kill("worker-0")
    with pytest.raises(GONE):
        while not (news := await line.news()).startswith(b"* BYE"):
            pass
        raise EOFError(news)
    again = await signed_in(dr, address)
    assert (await again.ask("SELECT INBOX")).state == "OK"
    assert (await again.ask("UID SEARCH ALL")).untagged == [b"SEARCH 1 2\r\n"]


async def test_pop3_and_what_was_sent_where_the_mail_is_not(sites: list[Site]) -> None:
    """POP3 is carried too; the copy of what was submitted goes by the queue to where the mailbox is."""
    pune, mumbai, dr = sites
    address = await person(pune, "xia", "--partition", "mail-apart")
    line = await signed_in(dr, address)
    await appended(line, 1)

    def taken() -> list[bytes]:
        client = poplib.POP3("127.0.0.1", dr.config.ports.pop3, timeout=SETTLED_S_MAX)
        client.user(address)
        client.pass_(PASSWORD)
        text = client.retr(1)[1]
        client.dele(1)
        client.quit()
        return text

    assert b"\r\n".join(await asyncio.to_thread(taken)) == message(1).rstrip(b"\r\n")
    assert b"INBOX (MESSAGES 0)" in (await line.ask("STATUS INBOX (MESSAGES)")).untagged[0].replace(b'"', b"")

    def submitted() -> None:
        with smtplib.SMTP("127.0.0.1", dr.config.ports.submission, timeout=SETTLED_S_MAX) as client:
            client.login(address, PASSWORD)
            assert client.sendmail(address, [address], own) == {}

    await asyncio.to_thread(pune.cli, "account", "set", address, "--file-sent", "on")
    own = b"From: " + address.encode() + b"\r\nMessage-ID: <sent@x>\r\nDate: Wed, 01 Jul 2026 10:00:00 +0200\r\n\r\nHello\r\n"
    async with asyncio.timeout(SETTLED_S_MAX):
        while not await counted(line, "Sent"):
            # The setting comes with the directory; submitted twice, it is filed once.
            await asyncio.to_thread(submitted)
            await asyncio.sleep(0.2)
    answer = await line.ask("APPEND Sent", own)
    assert answer.state == "OK" and "APPENDUID" in answer.text
    assert await counted(line, "Sent") == 1 and await counted(await signed_in(mumbai, address), "Sent") == 1


async def counted(line: Imap, mailbox: str) -> int:
    (row,) = (await line.ask(f"STATUS {mailbox} (MESSAGES)")).untagged
    return int(row.rpartition(b" ")[2].rstrip(b")\r\n"))


async def test_a_site_that_gains_a_copy_serves_it_itself_and_carries_again_when_it_is_gone(sites: list[Site]) -> None:
    pune, mumbai, dr = sites
    place = ("cluster", "partition", "move", "mail-apart", "--yes", "--to", "mumbai", "--copies")
    address = await person(pune, "yan", "--partition", "mail-apart")
    await appended(await signed_in(dr, address), 1)
    assert "not counted" in dr.cli("account", "show", address)
    await asyncio.to_thread(pune.cli, *place, "pune,dr")
    carried = introduced(address, pune, mumbai)
    async with asyncio.timeout(SETTLED_S_MAX):
        while True:
            line = await signed_in(dr, address)
            if (now := introduced(address, pune, mumbai)) == carried:
                break
            carried = now
    assert b"EXISTS" in b"".join((await line.ask("SELECT INBOX")).untagged)
    assert (await line.ask("UID SEARCH ALL")).untagged == [b"SEARCH 1\r\n"]

    await asyncio.to_thread(pune.cli, *place, "pune")
    with pytest.raises(EOFError, match="kept at another site now"):
        async with asyncio.timeout(SETTLED_S_MAX):
            while (await line.ask("NOOP")).state == "OK":  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    line = await signed_in(dr, address)
    assert introduced(address, pune, mumbai) == carried + 1
    assert (await line.ask("SELECT INBOX")).state == "OK"
    assert "not counted" in dr.cli("account", "show", address)

    await dr.kill("worker-0")
    line = await signed_in(dr, address)
    assert (await line.ask("SELECT INBOX")).state == "OK"
    await asyncio.to_thread(healthy, dr)


def healthy(site: Site) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{site.config.ports.http}/readyz", timeout=30) as answer:
        assert answer.status == 200, answer.read()
