"""Mail brought in by the administrator's door, into a real site: once, in order, with what each message says of itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.events import FLAGGED, SEEN
from protocols.admin.framing import Frames, Malformed
from protocols.admin.moving import LINE_BYTES_MAX, MESSAGES_PER_REQUEST_MAX, MESSAGES_TYPE
from protocols.port import Message
from tests.contracts.admin_door import GOOD, api_of, standing
from tests.contracts.admin_site import MemorySite
from tests.live import Live, Person

COMMAND = "0f" * 16
LETTER = b"Subject: hello\r\n\r\nGood day.\r\n"


class Bringer:
    """An operator's program, and whose mail it brings."""

    def __init__(self, live: Live, http: aiohttp.ClientSession, person: Person) -> None:
        self.live, self.http, self.person = live, http, person
        self.path = f"/api/v1/accounts/{person.address}/mailboxes"

    async def boxes(self) -> dict[str, Any]:
        async with self.http.get(self.path) as answer:
            assert answer.status == 200
            return {box["name"]: box for box in (await answer.json())["items"]}

    async def make(self, **new: Any) -> tuple[int, Any]:
        async with self.http.post(self.path, json=new) as answer:
            return answer.status, await answer.json(content_type=None)

    async def bring(self, box: str, body: bytes, command: str = COMMAND, kind: str = MESSAGES_TYPE) -> tuple[int, Any]:
        params, headers = {"command": command}, {"Content-Type": kind}
        path = f"{self.path}/{box}/messages"
        async with self.http.post(path, data=body, params=params, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def messages(self, box: str) -> list[Message]:
        found = self.live.site.messages(self.person.id, int(box), ranges.EVERY_UID, contents=True)
        return [message async for batch in found for message in batch]

    async def contents(self, box: str) -> list[tuple[str, int]]:
        async with self.http.get(f"{self.path}/{box}/contents") as answer:
            lines = [json.loads(line) async for line in answer.content if line.strip()]
        assert lines[-1]["kind"] == "finished"
        return [tuple(item) for line in lines[:-1] for item in line["items"]]


@pytest.fixture
async def bringer(live_site: Live) -> AsyncIterator[Bringer]:
    async with api_of(live_site) as http:
        yield Bringer(live_site, http, await live_site.person())


def framed(content: bytes, at: int = 1_000_000_000, **more: Any) -> bytes:
    return json.dumps({"size": len(content), "internal_at": at, **more}).encode() + b"\n" + content


async def test_messages_arrive_as_they_were_and_once(bringer: Bringer) -> None:
    inbox = (await bringer.boxes())["INBOX"]["id"]
    large = LETTER + b"x" * (3 << 20)
    body = framed(LETTER, 1, internal_zone=-90, flags=["\\Seen", "\\Flagged"], keywords=["$MDNSent", "work"]) + framed(
        large, 2
    )
    assert await bringer.bring(inbox, body) == (200, {"repeated": False, "refused": []})
    # Who heard no answer asks again, and it is there once.
    assert await bringer.bring(inbox, body) == (200, {"repeated": True, "refused": []})
    first, second = await bringer.messages(inbox)
    assert (first.internal_at, first.internal_zone, second.internal_at) == (1, -90, 2)
    assert first.content is not None and second.content is not None
    assert await bringer.live.site.read_many([first.content]) == [LETTER]
    assert b"".join([piece async for piece in bringer.live.site.read(second.content)]) == large
    assert await bringer.contents(inbox) == [(first.content.hash.hex(), 1), (second.content.hash.hex(), 2)]
    assert first.keywords == ("$MDNSent", "work") and (first.flags, second.flags) == (SEEN | FLAGGED, 0)
    assert (await bringer.boxes())["INBOX"]["messages"] == 2


async def test_what_cannot_be_taken_is_told_and_the_rest_comes(bringer: Bringer) -> None:
    inbox = (await bringer.boxes())["INBOX"]["id"]
    body = framed(b"a\0b") + framed(b"") + framed(LETTER, keywords=["no atom"]) + framed(LETTER)
    status, answer = await bringer.bring(inbox, body)
    assert status == 200 and [(one["number"], one["reason"]) for one in answer["refused"]] == [
        (0, "not-permitted"),
        (1, "not-permitted"),
        (2, "not-permitted"),
    ]
    assert len(await bringer.messages(inbox)) == 1
    status, answer = await bringer.bring(inbox, framed(b"\0"), "ab" * 16)
    assert (status, len(answer["refused"])) == (200, 1)


async def test_a_body_that_breaks_off_brings_nothing(bringer: Bringer) -> None:
    inbox = (await bringer.boxes())["INBOX"]["id"]
    good = framed(LETTER)
    for body in (
        good + b'{"size":',
        good + framed(LETTER)[:-1],
        good + b'{"size":-1,"internal_at":0}\n',
        good + b"x" * (LINE_BYTES_MAX + 1),
        good * (MESSAGES_PER_REQUEST_MAX + 1),
        good + framed(LETTER, unheard_of=1),
    ):
        status, problem = await bringer.bring(inbox, body)
        assert (status, problem["reason"]) == (400, "malformed")
    assert (await bringer.bring(inbox, good, kind="text/plain"))[0] == 415
    assert (await bringer.bring(inbox, good, command="short"))[0] == 400
    assert await bringer.messages(inbox) == []


async def test_a_mailbox_is_made_once_and_only_for_its_account(bringer: Bringer) -> None:
    status, made = await bringer.make(name="Work/Plans", subscribed=False)
    assert (status, made["name"], made["subscribed"]) == (201, "Work/Plans", False)
    assert (await bringer.make(name="Work/Plans"))[1] == made
    # There is a mailbox for that use already.
    assert (await bringer.make(name="Papierkorb", special_use="\\Trash"))[1]["special_use"] == ""
    status, problem = await bringer.make(name="a%")
    assert (status, problem["reason"]) == (422, "mailbox-name-invalid")
    other = Bringer(bringer.live, bringer.http, await bringer.live.person("ben"))
    for box in (made["id"], "1", "x", "9" * 19):
        assert (await other.bring(box, framed(LETTER)))[0] == 404
    assert await bringer.messages(made["id"]) == []


async def test_who_brought_it_is_in_the_log(bringer: Bringer) -> None:
    inbox = (await bringer.boxes())["INBOX"]["id"]
    await bringer.bring(inbox, framed(LETTER))
    async with bringer.http.get("/api/v1/log") as answer:
        lines = [json.loads(line) async for line in answer.content if line.strip()]
    events = [line for line in lines if line.get("entity") == str(bringer.person.id)]
    (brought,) = [line for line in events if line["type"].startswith("MessageAppended")]
    assert (brought["by"], brought["protocol"]) == ("token", "admin")


async def test_a_door_without_mail_says_so() -> None:
    async with standing(await MemorySite.with_domain()) as asking:
        await asking.ask("POST", "/api/v1/accounts", {"address": "anna@example.org", "password": GOOD})
        status, problem = await asking.ask("GET", "/api/v1/accounts/anna@example.org/mailboxes")
        assert (status, problem["reason"]) == (503, "unavailable")


@given(st.lists(st.binary(max_size=40), max_size=5), st.lists(st.integers(1, 60), min_size=1))
def test_frames_are_the_same_however_the_bytes_come(messages: list[bytes], cuts: list[int]) -> None:
    body = b"".join(framed(one, n) for n, one in enumerate(messages))

    async def chunks() -> AsyncIterator[bytes]:
        at = n = 0
        while at < len(body):
            size = cuts[n % len(cuts)]
            yield body[at : at + size]
            at, n = at + size, n + 1

    async def read() -> list[tuple[int, bytes]]:
        frames = Frames(chunks())
        found = []
        while (announced := await frames.announced()) is not None:
            found.append((announced.internal_at, b"".join([piece async for piece in frames.pieces()])))
        return found

    assert asyncio.run(read()) == list(enumerate(messages))


@given(st.binary(max_size=120))
def test_any_bytes_are_frames_or_malformed(data: bytes) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield data

    async def read() -> None:
        frames = Frames(chunks())
        while await frames.announced() is not None:
            async for _ in frames.pieces():
                pass

    try:
        asyncio.run(read())
    except Malformed:
        pass
