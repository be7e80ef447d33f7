"""Searches that go on (RFC 5267 §4.3): whoever follows what is told has what a new search would find."""

import asyncio
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.domain.mailbox.ranges import expand
from protocols.imap.server import ImapServer
from tests.laws.test_imap_session import TRUSTED
from tests.memory_site import MemorySite
from tests.transcripts.play import Client

_TOLD = re.compile(r'\* ESEARCH \(TAG "(\w+)"\)( UID)? (ADDTO|REMOVEFROM) \(0 ([\d:,]+)\)')
_FOUND = re.compile(r'\* ESEARCH \(TAG "(\w+)"\)( UID)?(?: ALL ([\d:,]+))?')
_EXPUNGE = re.compile(r"\* (\d+) EXPUNGE")

CRITERIA = ("FLAGGED", "UNSEEN DELETED", "NOT FLAGGED", "OR FLAGGED SUBJECT b", "UID 3:90", "1:2", "NOT 2", "KEYWORD x")
steps = st.tuples(
    st.booleans(),
    st.one_of(
        st.builds("STORE {} {}FLAGS.SILENT ({})".format, st.sampled_from(("1", "2:*", "*")), st.sampled_from("+-"),
                  st.sampled_from(("\\Flagged", "\\Deleted", "\\Seen x"))),
        st.sampled_from(("APPEND a", "APPEND b", "APPEND b (\\Flagged)", "EXPUNGE", "EXPUNGE", "NOOP", "SEARCH ALL")),
    ),
)  # fmt: skip


class Follower:
    """`known`: by the search's tag, UIDs or numbers."""

    def __init__(self, server: ImapServer) -> None:
        self.client = Client(server)
        self.known: dict[str, set[int]] = {}
        self.by_number: set[str] = set()
        self.count = 0

    async def ask(self, request: str, tag: str = "") -> set[int]:
        """What an ESEARCH with the command's own tag says."""
        self.count += 1
        tag = tag or f"t{self.count}"
        await self.client.send(f"{tag} {request}\r\n".encode(), "whole")
        found: set[int] = set()
        while (line := await self.client.line()) is not None:
            if line.startswith(f"{tag} "):
                return found
            if told := _TOLD.fullmatch(line):
                numbers, known = _set(told[4]), self.known[told[1]]
                assert (told[2] is None) is (told[1] in self.by_number)
                if told[3] == "ADDTO":
                    assert not numbers & known
                    known |= numbers
                else:
                    assert numbers <= known
                    known -= numbers
            elif gone := _EXPUNGE.fullmatch(line):
                number = int(gone[1])
                for search in self.by_number:
                    assert number not in self.known[search], "RFC 5267 §4.3.4: REMOVEFROM comes before"
                    self.known[search] = {one - (one > number) for one in self.known[search]}
            elif answer := _FOUND.fullmatch(line):
                found = _set(answer[3] or "")
        raise AssertionError("closed")


def _set(text: str) -> set[int]:
    pairs = [piece.partition(":") for piece in text.split(",") if piece]
    return {number for first, _, last in pairs for number in expand(((int(first), int(last or first)),))}


async def story(criteria: list[str], happens: list[tuple[bool, str]]) -> None:
    site = MemorySite()
    await site.account("anna@example.org", "secret")
    server = ImapServer(site, TRUSTED)
    one, other = Follower(server), Follower(server)
    for each in (one, other):
        await each.ask("LOGIN anna@example.org secret")
        await each.ask("SELECT INBOX")
    for _ in range(3):
        await one.ask("APPEND INBOX {15+}\r\nSubject: a\r\n\r\nx")
    for n, text in enumerate(criteria):
        for uid in ("", "UID "):
            tag = f"s{n}{'u' if uid else ''}"
            one.known[tag] = await one.ask(f"{uid}SEARCH RETURN (UPDATE ALL) {text}", tag)
            if not uid:
                one.by_number.add(tag)
    for own, step in happens:
        word, _, rest = step.partition(" ")
        if word == "APPEND":
            text, _, flags = rest.partition(" ")
            step = f"APPEND INBOX {flags}{' ' if flags else ''}{{15+}}\r\nSubject: {text}\r\n\r\nx"
        await (one if own else other).ask(step)
    await one.ask("NOOP")
    for n, text in enumerate(criteria):
        # The numbers of then are these UIDs: they were the first three.
        now = {"1:2": "UID 1:2", "NOT 2": "NOT UID 2"}.get(text, text)
        for uid in ("", "UID "):
            assert await one.ask(f"{uid}SEARCH RETURN (ALL) {now}") == one.known[f"s{n}{'u' if uid else ''}"], text
    for each in (one, other):
        each.client.transport.close()
    await server.close()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(CRITERIA), min_size=1, max_size=3), st.lists(steps, max_size=10))
def test_who_follows_knows(criteria: list[str], happens: list[tuple[bool, str]]) -> None:
    asyncio.run(story(criteria, happens))
