"""Two people at two sites work in one mailbox: what they bring and mark is there once, through a cut too, and what each has
read is its own."""

import asyncio
import re
import time

import pytest

from tests.faults.clients import Imap
from tests.faults.lines import Lined
from tests.faults.test_sites import SHOWN_S_MAX, message, person, signed_in

pytestmark = [pytest.mark.long, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

MESSAGES = 12
MEANWHILE, AFTERWARDS = range(200, 220), range(300, 303)
ANSWERED_S_MAX = 60.0

Rows = dict[bytes, tuple[int, frozenset[bytes]]]

_ROW = re.compile(rb"\d+ FETCH \(UID (\d+) FLAGS \(([^)]*)\) BODY\[HEADER\.FIELDS \(SUBJECT\)\] \{\d+\}\r\nSubject: ([^\r]*)")


async def rows(client: Imap, name: str) -> Rows:
    """Subject → (UID, flags); each subject once."""
    assert (await client.ask(f"EXAMINE {name}")).state == "OK"
    told = (await client.ask("UID FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")).untagged
    found = [match for line in told if (match := _ROW.match(line)) is not None]
    subjects = [match[3] for match in found]
    assert len(subjects) == len(set(subjects)), f"doubled: {sorted(subjects)}"
    flags = [frozenset(match[2].split()) - {b"\\Recent"} for match in found]
    return {match[3]: (int(match[1]), flag) for match, flag in zip(found, flags, strict=True)}


async def until_alike(clients: dict[str, tuple[Imap, str]], count: int) -> dict[str, Rows]:
    """By who looks. As soon as all are shown as many, under the same UIDs with the same flags but for \\Seen."""
    seen: dict[str, Rows] = {}
    async with asyncio.timeout(SHOWN_S_MAX):
        while True:
            seen = {who: await rows(client, name) for who, (client, name) in clients.items()}
            shared = [{s: (uid, flags - {b"\\Seen"}) for s, (uid, flags) in each.items()} for each in seen.values()]
            if len(shared[0]) == count and all(each == shared[0] for each in shared):
                return seen


async def bring(client: Imap, name: str, numbers: range, flag: str) -> None:
    for number in numbers:
        assert (await client.ask(f"APPEND {name} ({flag})", message(number, 600))).state == "OK"


async def test_two_people_at_two_sites_in_one_mailbox(lined: Lined) -> None:
    pune, mumbai, dr = lined.sites
    anna = await person(pune, "anna")
    bob = await person(pune, "bob")
    at_home, far = await signed_in(pune, anna), await signed_in(mumbai, bob)
    theirs = f'"Other Users/{anna}/Plans"'
    assert (await at_home.ask("CREATE Plans")).state == "OK"
    assert (await far.ask(f"SELECT {theirs}")).state == "NO"
    await asyncio.to_thread(pune.cli, "acl", "set", anna, "Plans", bob, "lrswite")
    async with asyncio.timeout(SHOWN_S_MAX):
        while (await far.ask(f"SELECT {theirs}")).state != "OK":
            pass
    # Both bring and mark at once, each at a site of its own.
    await asyncio.gather(
        bring(at_home, "Plans", range(MESSAGES), "\\Seen"), bring(far, theirs, range(100, 100 + MESSAGES), "\\Seen")
    )
    clients = {"anna": (at_home, "Plans"), "bob": (far, theirs)}
    seen = await until_alike(clients, 2 * MESSAGES)
    for who, own in (("anna", range(MESSAGES)), ("bob", range(100, 100 + MESSAGES))):
        read = {subject for subject, (_, flags) in seen[who].items() if b"\\Seen" in flags}
        assert read == {subject_of(number) for number in own}, "what each has brought it has read, and nothing else"
    # The line to the home is cut: what bob asks for meanwhile is done once when it heals, or was refused and is not done.
    assert (await far.ask(f"SELECT {theirs}")).state == "OK"
    began = time.monotonic()
    lined.links.cut("mumbai")
    asked = asyncio.create_task(far.ask("UID STORE 1:* +FLAGS (\\Flagged \\Seen)"))
    await at_home.ask("SELECT Plans")
    assert (await at_home.ask("UID STORE 1:* +FLAGS (\\Answered)")).state == "OK"
    await bring(at_home, "Plans", MEANWHILE, "\\Draft")
    lined.links.heal()
    async with asyncio.timeout(ANSWERED_S_MAX):
        answer = await asked
    if answer.state != "OK":
        assert "UNAVAILABLE" in answer.text, answer.text
        async with asyncio.timeout(SHOWN_S_MAX):
            while (await far.ask("UID STORE 1:* +FLAGS (\\Flagged \\Seen)")).state != "OK":
                pass
    print(f"\nthe cut took {time.monotonic() - began:.1f} s, and bob heard {answer.state}")
    await bring(far, theirs, AFTERWARDS, "\\Seen")
    third = await signed_in(dr, bob)
    clients["bob at a third site"] = (third, theirs)
    seen = await until_alike(clients, 2 * MESSAGES + len(MEANWHILE) + len(AFTERWARDS))
    assert seen["bob"] == seen["bob at a third site"]
    flagged = {subject for subject, (_, flags) in seen["anna"].items() if b"\\Flagged" in flags}
    assert {subject_of(number) for number in (*range(MESSAGES), *range(100, 100 + MESSAGES))} <= flagged
    read = {subject for subject, (_, flags) in seen["anna"].items() if b"\\Seen" in flags}
    assert read == {subject_of(number) for number in range(MESSAGES)}, "what bob has read is not what anna has"
    # Shut out at the home, bob is so at every site.
    await asyncio.to_thread(pune.cli, "acl", "delete", anna, "Plans", bob)
    for client in (far, third):
        async with asyncio.timeout(SHOWN_S_MAX):
            try:
                while (await client.ask(f"EXAMINE {theirs}")).state == "OK":
                    pass
            except EOFError:
                pass  # It was told BYE.


def subject_of(number: int) -> bytes:
    match = re.search(rb"Subject: ([^\r\n]*)", message(number, 600))
    assert match is not None
    return match[1]
