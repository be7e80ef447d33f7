"""A session that could not hear the news never answers OK to what it passed over for want of them."""

import ipaddress

from cluster.domain.refusal import Reason, Refusal
from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings
from protocols.port import Changes
from tests.memory_site import MemorySite
from tests.transcripts.play import Client

TRUSTED = Settings(plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),))


class Deaf(MemorySite):
    """Its tables do not say what is new while `deaf`."""

    deaf = False

    async def changes(self, account: int, mailbox: int, since: int, *, reader: int = 0) -> Changes | Refusal:
        return Refusal(Reason.UNAVAILABLE) if self.deaf else await super().changes(account, mailbox, since)


async def ask(client: Client, tag: str, request: str) -> list[str]:
    await client.send(f"{tag} {request}\r\n".encode(), "whole")
    lines: list[str] = []
    while not lines or not lines[-1].startswith(f"{tag} "):
        line = await client.line()
        assert line is not None
        lines.append(line)
    return lines


async def selected(site: MemorySite) -> tuple[ImapServer, Client]:
    """A client that is signed in and has INBOX selected."""
    await site.account("anna@example.org", "secret")
    server = ImapServer(site, TRUSTED)
    client = Client(server)
    await client.line()
    await ask(client, "a1", "LOGIN anna@example.org secret")
    await ask(client, "a2", "SELECT INBOX")
    return server, client


async def test_a_uid_that_the_view_lacks_is_not_passed_over_in_silence() -> None:
    site = Deaf()
    server, client = await selected(site)
    site.deaf = True
    appended = await ask(client, "a3", "APPEND INBOX {9+}\r\nA: b\r\n\r\nx")
    assert "APPENDUID" in appended[-1] and not any("EXISTS" in line for line in appended)
    for tag, words in (
        ("a4", "UID STORE 1 +FLAGS (\\Flagged)"),
        ("a5", "UID MOVE 1 Trash"),
        ("a6", "UID FETCH 1 FLAGS"),
    ):
        answer = await ask(client, tag, words)
        assert answer[-1].startswith(f"{tag} NO [UNAVAILABLE]"), answer
    assert (await ask(client, "a7", "CREATE Other"))[-1].startswith("a7 OK")
    site.deaf = False
    stored = await ask(client, "a8", "UID STORE 1 +FLAGS (\\Flagged)")
    assert "* 1 EXISTS" in stored and any("\\Flagged" in line for line in stored) and stored[-1].startswith("a8 OK")
    client.transport.close()
    await server.close()


class Broken(Deaf):
    """Fails in a way that nobody foresaw while `deaf`."""

    async def changes(self, account: int, mailbox: int, since: int, *, reader: int = 0) -> Changes | Refusal:
        if self.deaf:
            raise RuntimeError("the line broke in the middle of an answer")
        return await super().changes(account, mailbox, since)


async def test_a_question_that_failed_unforeseen_leaves_the_view_behind() -> None:
    site = Broken()
    server, client = await selected(site)
    site.deaf = True
    appended = await ask(client, "a3", "APPEND INBOX {9+}\r\nA: b\r\n\r\nx")
    assert "APPENDUID" in appended[-1]
    moved = await ask(client, "a4", "UID MOVE 1 Trash")
    assert moved[-1].startswith("a4 NO"), moved
    site.deaf = False
    moved = await ask(client, "a5", "UID MOVE 1 Trash")
    assert any("COPYUID" in line for line in moved) and moved[-1].startswith("a5 OK")
    client.transport.close()
    await server.close()


class Lagging(MemorySite):
    """Has not come to what its clients were told elsewhere."""

    async def token(self, account: int, modseq: int) -> int | Refusal | None:
        return Refusal(Reason.UNAVAILABLE)


async def test_what_a_client_saw_elsewhere_and_this_site_has_not_is_unavailable_and_not_deleted() -> None:
    """RFC 7162 §3.1.3, §3.1.4.1, §3.1.5, §3.2.5, §3.2.6."""
    site = Lagging()
    server, client = await selected(site)
    await ask(client, "b1", "APPEND INBOX {9+}\r\nA: b\r\n\r\nx")
    boxes = next(iter(site.state.accounts.values())).boxes
    uidvalidity = next(box.uidvalidity for box in boxes.values() if box.name == "INBOX")
    assert (await ask(client, "b2", "UNSELECT"))[-1].startswith("b2 OK")
    assert (await ask(client, "b3", "ENABLE QRESYNC"))[-1].startswith("b3 OK")
    for tag, words in (
        ("c1", f"SELECT INBOX (QRESYNC ({uidvalidity} 9000 1:9))"),
        ("c2", "SELECT INBOX"),
        ("c3", "UID FETCH 1:* (FLAGS) (CHANGEDSINCE 9000 VANISHED)"),
        ("c4", "UID STORE 1 (UNCHANGEDSINCE 9000) +FLAGS (\\Deleted)"),
        ("c5", "UID SEARCH OR MODSEQ 9000 SEEN"),
    ):
        answer = await ask(client, tag, words)
        if tag == "c2":
            assert answer[-1].startswith("c2 OK")
            continue
        assert answer[-1].startswith(f"{tag} NO [UNAVAILABLE]"), answer
        assert not any(word in line for line in answer for word in ("VANISHED", "FETCH", "SEARCH")), answer
    client.transport.close()
    await server.close()
