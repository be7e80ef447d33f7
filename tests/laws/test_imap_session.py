"""Two clients on one mailbox, doing what they like: whoever follows what the server says knows what is there, and nothing
that they send makes the server fail."""

import asyncio
import ipaddress
import re
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.imap.server import ImapServer
from protocols.imap.settings import Settings
from tests.memory_site import MemorySite
from tests.transcripts.play import Client

TRUSTED = Settings(plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),), bad_commands_max=1000)

_EXPUNGE = re.compile(r"\* (\d+) EXPUNGE")
_EXISTS = re.compile(r"\* (\d+) EXISTS")
_VANISHED = re.compile(r"\* VANISHED ([\d:,]+)")
_FETCH = re.compile(r"\* (\d+) FETCH \((?:.* )?UID (\d+)")

COUNTING = ("FETCH", "STORE", "SEARCH")


class Follower:
    """A client that believes what it is told. `uids`: by place, 0 where it was not told yet."""

    def __init__(self, server: ImapServer) -> None:
        self.client = Client(server)
        self.uids: list[int] = []
        self.count = 0

    async def ask(self, request: str, data: bytes = b"") -> str:
        self.count += 1
        tag = f"t{self.count}"
        await self.client.send(f"{tag} {request}".encode() + data + b"\r\n", "whole")
        while True:
            line = await self.client.line()
            assert line is not None and "SERVERBUG" not in line, (request, line)
            if line.startswith(f"{tag} "):
                return line
            self._follow(line, request.split()[0])

    def _follow(self, line: str, word: str) -> None:
        if found := _EXISTS.match(line):
            assert int(found[1]) >= len(self.uids), "EXISTS never takes away (RFC 9051 §7.4.1)"
            self.uids += [0] * (int(found[1]) - len(self.uids))
        elif found := _EXPUNGE.match(line):
            assert word not in COUNTING, "RFC 9051 §7.5.1"
            del self.uids[int(found[1]) - 1]
        elif found := _VANISHED.match(line):
            assert word not in COUNTING, "RFC 7162 §3.2.10"
            for piece in found[1].split(","):
                first, _, last = piece.partition(":")
                for uid in range(int(first), int(last or first) + 1):
                    # One that is not known is among those that were only counted, at the end.
                    self.uids.remove(uid if uid in self.uids else 0)
        elif found := _FETCH.match(line):
            place = int(found[1]) - 1
            assert self.uids[place] in (0, int(found[2])), "a message's number leads to its UID"
            self.uids[place] = int(found[2])


numbers = st.sampled_from(("1", "2", "1:*", "*", "2:3", "3,1", "$"))
flags = st.sampled_from(("(\\Deleted)", "(\\Seen $a)", "()", "\\Flagged"))
prefixes = st.sampled_from(("", "UID "))
steps = st.one_of(
    st.just("APPEND"),
    st.sampled_from(("WIPE 1", "WIPE 2:3", "WIPE *")),
    st.builds("{}STORE {} {}FLAGS{} {}".format, prefixes, numbers, st.sampled_from("+- "), st.sampled_from(("", ".SILENT")), flags).map(
        lambda text: text.replace("  FLAGS", " FLAGS")
    ),
    st.builds("{}FETCH {} {}".format, prefixes, numbers, st.sampled_from(("FLAGS", "(UID BODY[TEXT])", "(UID MODSEQ)", "ENVELOPE"))),
    st.builds("{}SEARCH {}".format, prefixes, st.sampled_from(("DELETED", "RETURN (SAVE) UNSEEN", "NOT $", "TEXT x", "MODSEQ 1"))),
    st.builds("{}COPY {} INBOX".format, prefixes, numbers),
    st.builds("{}MOVE {} {}".format, prefixes, numbers, st.sampled_from(("INBOX", "Trash", "Nowhere"))),
    st.just("EXPUNGE"),
    st.builds("UID EXPUNGE {}".format, numbers),
    st.just("NOOP"),
)  # fmt: skip
story = st.lists(st.tuples(st.integers(0, 1), steps), min_size=4, max_size=24)
FIRST = [(0, "APPEND")] * 4


async def told(second: Literal["", "QRESYNC"], events: list[tuple[int, str]]) -> None:
    site = MemorySite()
    await site.account("anna@example.org", "secret")
    server = ImapServer(site, TRUSTED)
    followers = [Follower(server), Follower(server)]
    for n, one in enumerate(followers):
        await one.ask("LOGIN anna@example.org secret")
        if n and second:
            await one.ask(f"ENABLE {second}")
        await one.ask("SELECT INBOX")
    for n, step in FIRST + events:
        one = followers[n]
        if step == "APPEND":
            await one.ask("APPEND INBOX {9+}\r\n", b"A: b\r\n\r\nx")
        elif step.startswith("WIPE "):
            await one.ask(f"STORE {step[5:]} +FLAGS.SILENT (\\Deleted)")
            await one.ask("EXPUNGE")
        else:
            await one.ask(step)
        # Who gets VANISHED has to know UIDs (RFC 7162 §3.2.10), and so asks for those of messages that came.
        if second:
            await followers[1].ask("UID FETCH 1:* UID")
    for one in followers:
        await one.ask("NOOP")
        known = len(one.uids)
        await one.ask("FETCH 1:* UID" if known else "NOOP")
        assert 0 not in one.uids
        assert one.uids == sorted(one.uids)
    assert followers[0].uids == followers[1].uids
    for one in followers:
        one.client.transport.close()
    await server.close()


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(("", "QRESYNC")), story)
def test_who_follows_what_is_said_knows_what_is_there(second: Literal["", "QRESYNC"], events: list[tuple[int, str]]) -> None:
    asyncio.run(told(second, events))
