"""A session that was shown what is not in history any more ends with BYE, whatever its client does next."""

import ipaddress

import pytest

from cluster.domain.mailbox.events import UIDVALIDITY_FRESH, EpochStarted
from cluster.domain.mailbox.state import Unappliable, evolve
from cluster.position import position
from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings
from tests.memory_site import MemorySite
from tests.transcripts.play import Client

TRUSTED = Settings(plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),))


async def session(server: ImapServer, *, select: bool) -> Client:
    client = Client(server)
    await client.line()
    await client.ask("a1", b"a1 LOGIN anna@example.org secret\r\n")
    if select:
        await client.ask("a2", b"a2 SELECT INBOX\r\n")
    return client


def take_back(site: MemorySite) -> None:
    """As a site does when it took an account's tables back."""
    for watches in site._watches.values():
        for watch in watches:
            watch.rolled_back = True
            watch.wake()


async def heard(client: Client) -> list[str]:
    lines = []
    while (line := await client.line()) is not None:
        lines.append(line)
    return lines


async def test_uids_that_begin_anew_end_it_too() -> None:
    site = MemorySite()
    await site.account("anna@example.org", "secret")
    server = ImapServer(site, TRUSTED)
    client = await session(server, select=True)
    begun = evolve(site.state, 0, EpochStarted(((1, 9, UIDVALIDITY_FRESH),)), position(2, 1))
    assert not isinstance(begun, Unappliable)
    site.state = begun
    await client.send(b"n1 NOOP\r\n", "whole")
    assert (await heard(client))[0].startswith("* BYE [UNAVAILABLE] The mailbox has new UIDs")
    await server.close()


@pytest.mark.parametrize("idle", [False, True])
async def test_it_ends(idle: bool) -> None:
    site = MemorySite()
    await site.account("anna@example.org", "secret")
    server = ImapServer(site, TRUSTED)
    client, other = await session(server, select=True), await session(server, select=False)
    noticed = await session(server, select=False)
    await noticed.ask("n1", b"n1 NOTIFY SET (PERSONAL (MessageNew MessageExpunge))\r\n")
    if idle:
        await client.send(b"i1 IDLE\r\n", "whole")
        assert (await client.line() or "").startswith("+ ")
    take_back(site)
    if not idle:
        await client.send(b"s1 UID STORE 1:* +FLAGS (\\Seen)\r\n", "whole")
    lines = await heard(client)
    assert lines[0].startswith("* BYE [UNAVAILABLE]") and not any(line.startswith("s1 ") for line in lines)
    # Who is told at any time (RFC 5465) remembers how all stood, and waits in no command.
    assert [line.split("]")[0] for line in await heard(noticed)] == ["* BYE [UNAVAILABLE"]
    # Who has nothing selected remembers nothing.
    await other.ask("n1", b"n1 NOOP\r\n")
    await other.ask("n2", b"n2 SELECT INBOX\r\n")
    other.transport.close()
    await server.close()
