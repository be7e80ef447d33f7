"""An event of a later release is waited at; one that takes for ever holds up its entity alone."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from cluster import codec
from cluster.domain.actor import Actor
from cluster.domain.mailbox import events as m
from cluster.log.model import Append, NewEvent, Record, Stored
from cluster.position import position
from storage import follower
from storage.blobs.disk import DiskBlobs
from storage.follower import SLOW_TRIES_MAX, Follower
from storage.postgres.folded import read_waiting
from storage.postgres.pool import Database, Plain
from storage.projector import Fold, WaitsForRelease
from tests.contracts.test_follower import ANNA, INBOX, Place
from tests.contracts.test_follower import place as _place
from tests.live import eventually

place = _place
COMMAND = b"c" * 16


def later(event: object, old: bytes, new: bytes, command: bytes = COMMAND) -> bytes:
    payload = codec.encode(event, at_us=1_700_000_000_000_000, by=Actor("test"), command=command)  # type: ignore[arg-type]
    assert old in payload and len(old) == len(new)
    return payload.replace(old, new)


SUBSCRIBED = m.Subscribed("a", True)


@pytest.mark.parametrize(
    ("old", "new", "event"),
    [
        (b"Subscribed.1", b"Subscribed.2", "Subscribed.2"),
        (b"Subscribed.1", b"Everything.1", "Everything.1"),
        (b"mailbox", b"contact", "Subscribed.1"),
        (b"\xa1v\x01", b"\xa1v\x02", "Subscribed.1"),
    ],
)
def test_a_later_release_is_told_from_damage(old: bytes, new: bytes, event: str) -> None:
    with pytest.raises(codec.Newer) as caught:
        codec.decode(later(SUBSCRIBED, old, new))
    assert caught.value.event == event


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Subscribed.1", b"\x00\x01\x02scribed.1"),
        (b"Subscribed.1", b"Subscribed.0"),
        (b"Subscribed.1", b"subscribed.1"),
        (b"subscribed\xc3", b"subscribed\x07"),  # a known fact with data that it cannot have
        (b"\xa1v\x01", b"\xa1v\x00"),
    ],
)
def test_damage_is_no_later_release(old: bytes, new: bytes) -> None:
    payload = later(SUBSCRIBED, old, new)
    if new == b"\xa1v\x00":
        assert codec.decode(payload)[1] == SUBSCRIBED
        return
    with pytest.raises(codec.Undecodable) as caught:
        codec.decode(payload)
    assert not isinstance(caught.value, codec.Newer)


async def put(place: Place, payload: bytes, command: bytes = COMMAND) -> int:
    new = NewEvent("mailbox", str(ANNA), payload)
    stored = await place.log.append(Append(place.partition, command, (new,), (), 0))
    assert isinstance(stored, Stored)
    return stored.last


async def test_the_partition_stops_at_it_and_goes_on_after_the_upgrade(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "WAIT_FOR_RELEASE_S", 0.05)
    await place.append(b"one")
    before, at = place.last, await put(place, later(SUBSCRIBED, b"Subscribed.1", b"Subscribed.2"))
    await place.append(b"two")

    async def waits() -> bool:
        return [(one.position, one.event) for one in await read_waiting(place.database)] == [(at, "Subscribed.2")]

    async with place.follower():
        await eventually(waits)
        assert await place.site.rows("SELECT position FROM folded") == [(before,)]
        assert await place.site.rows("SELECT 1 FROM quarantine") == []
        # The upgrade: a release that knows it.
        known = dict(codec._data)
        decode = known["mailbox"].decode

        class Upgraded:
            def decode(self, data: bytes) -> object:
                return decode(bytes(data).replace(b"Subscribed.2", b"Subscribed.1"))

        monkeypatch.setitem(codec._data, "mailbox", Upgraded())
        await eventually(place.folded)
    assert await read_waiting(place.database) == []
    assert await place.site.rows("SELECT name FROM subscription") == [("a",)]
    assert await place.site.rows("SELECT count(*) FROM message") == [(2,)]


async def test_what_comes_before_it_in_a_batch_is_folded(place: Place) -> None:
    fold = Fold(place.site.db, place.partition)
    await fold.start()
    payload = codec.encode(m.MailboxesCreated((m.Made(INBOX, "INBOX"),)), at_us=1, by=Actor("test"), command=b"d" * 16)
    records = [
        Record(position(1, 1), "mailbox", str(ANNA), payload),
        Record(position(1, 2), "mailbox", str(ANNA), later(SUBSCRIBED, b"Subscribed.1", b"Subscribed.2")),
    ]
    with pytest.raises(WaitsForRelease) as caught:
        await fold.batch(records)
    assert caught.value.position == position(1, 2)
    assert await place.site.rows("SELECT position FROM folded") == [(position(1, 1),)]


class Impatient(Database):
    """Whose statements may take a moment only."""

    async def own(self) -> Plain:
        connection = await super().own()
        await connection.execute("SET statement_timeout = '100ms'")
        return connection


async def test_an_event_that_takes_for_ever_holds_its_entity_and_nobody_else(place: Place, tmp_path: Path) -> None:
    await place.append(b"one")
    database = Impatient(place.database.url, schema=place.database.schema)
    await database.start()
    blobs = DiskBlobs(tmp_path / "slow")
    slow = Follower(place.partition, place.log, database, blobs)
    task = asyncio.create_task(slow.run())
    lock = await asyncpg.connect(place.database.url)
    try:
        await eventually(place.folded)
        async with lock.transaction():
            await lock.execute("LOCK TABLE follower.subscription IN ACCESS EXCLUSIVE MODE")
            at = await put(place, codec.encode(SUBSCRIBED, at_us=1, by=Actor("test"), command=COMMAND))
            other = codec.encode(
                m.MailboxesCreated((m.Made(80, "INBOX"),)), at_us=2, by=Actor("test"), command=b"e" * 16
            )
            new = NewEvent("mailbox", "8", other)
            stored = await place.log.append(Append(place.partition, b"e" * 16, (new,), (), 0))
            assert isinstance(stored, Stored)
            place.last = stored.last
            await eventually(place.folded, 20.0)
        assert await place.site.rows("SELECT position, entity, held FROM quarantine") == [(at, str(ANNA), True)]
        assert await place.site.rows("SELECT id FROM mailbox WHERE account = 8") == [(80,)]
        assert not slow._slow and SLOW_TRIES_MAX == 3
    finally:
        task.cancel()
        await asyncio.wait([task])
        await lock.close()
        await blobs.close()
        await database.stop()
