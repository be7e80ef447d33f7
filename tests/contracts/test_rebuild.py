"""Tables made anew from the log are the tables that were there, and nobody notices the exchange."""

import asyncio
import contextlib
from contextlib import aclosing
from typing import Any

import pytest

from cluster.domain.mailbox.commands import ChangeFlags, CopyMessages, CreateMailbox, DeleteMailbox, Expunge
from cluster.domain.mailbox.events import DELETED, SEEN, FlagMode
from storage.overview import Progress
from storage.rebuild import RebuildRefused, rebuild
from storage.shapes import Changes, Done
from tests.contracts.test_site import MESSAGE, append, body, select
from tests.live import ACTOR, Live, Person, eventually


async def dump(live: Live, schema: str = "live") -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, at one moment."""
    async with live.parts.database.connection() as db, db.transaction(isolation="repeatable_read"):
        names = await db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY 1", schema)
        assert len(names) > 15
        return {
            name: sorted(map(tuple, await db.fetch(f"SELECT * FROM {schema}.{name}")), key=repr)  # noqa: S608
            for (name,) in names
        }


async def tables_oid(live: Live) -> int:
    row = await live.parts.database.row("SELECT to_regclass('live.message')::oid::bigint AS oid")
    assert row is not None
    return int(row["oid"])


async def schemas(live: Live) -> set[str]:
    rows = await live.parts.database.fetch("SELECT nspname FROM pg_namespace")
    return {row["nspname"] for row in rows} & {"live", "next", "old", "site"}


async def rebuilt(live: Live) -> list[Progress]:
    return [step async for step in rebuild(live.parts.database, live.parts.log, live.parts.partitions)]


async def lived_in(live: Live) -> Person:
    """Somebody whose mailboxes have seen everything that can happen to them."""
    site, person = live.site, await live.person()
    await site.mailboxes(person.id)
    for _ in range(5):
        await append(live, person, MESSAGE, flags=SEEN)
    inbox = (await select(live, person)).status.mailbox.id
    for command in (
        ChangeFlags(person.id, inbox, ((1, 3),), FlagMode.ADD, DELETED, ("$one", "two")),
        CopyMessages(person.id, inbox, "Archive", ((1, 9),)),
        CopyMessages(person.id, inbox, "Trash", ((4, 4),), moved=True),
        Expunge(person.id, inbox, ((1, 2),)),
        CreateMailbox(person.id, "gone", (live.world.new_id(),)),
        DeleteMailbox(person.id, "gone"),
    ):
        assert isinstance(await site.execute(ACTOR, command), Done), command
    return person


async def test_a_rebuild_gives_the_tables_that_were_there_and_a_second_changes_nothing(live_site: Live) -> None:
    person = await lived_in(live_site)
    before, uids = await dump(live_site), (await select(live_site, person)).uids
    oid = await tables_oid(live_site)
    steps = await rebuilt(live_site)
    assert await dump(live_site) == before
    assert await tables_oid(live_site) != oid and await schemas(live_site) == {"live", "site"}
    assert steps[-1] == Progress("exchange", 1, 1, "schemas") and not any(step.warning for step in steps)
    events = [step for step in steps if step.step == "tables"]
    assert events[-1].done == events[-1].total == sum(row[3] for row in before["folded"])
    assert [step.done for step in events] == sorted(step.done for step in events)
    await rebuilt(live_site)
    assert await dump(live_site) == before
    # And life goes on in them: the projector noticed that they are others.
    assert (await append(live_site, person, MESSAGE)).uids == (6,)
    selected = await select(live_site, person)
    assert [*uids, 6] == list(selected.uids)
    assert await body(live_site, person, selected.status.mailbox.id, 6) == MESSAGE


async def test_sessions_read_and_write_through_a_rebuild_and_see_no_error(live_site: Live) -> None:
    people = [await lived_in(live_site) for _ in range(2)]
    inboxes = {person.id: (await select(live_site, person)).status.mailbox.id for person in people}
    over, written = asyncio.Event(), asyncio.Event()
    appended: dict[int, list[int]] = {person.id: [] for person in people}

    async def writes(person: Person) -> None:
        while not over.is_set():
            appended[person.id].extend((await append(live_site, person, MESSAGE)).uids)

    async def watches(person: Person) -> int:
        """As a client does that keeps a MODSEQ: what it hears of must be all that comes."""
        selected = await select(live_site, person)
        since, known = selected.status.highestmodseq, set(selected.uids)
        while True:
            last = written.is_set()
            changes = await live_site.site.changes(person.id, inboxes[person.id], since)
            assert isinstance(changes, Changes) and changes.highestmodseq >= since and not changes.vanished
            since, known = changes.highestmodseq, known | {flags.uid for flags in changes.changed}
            if last:
                return len(known)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(writes(person)) for person in people]
        watched = [group.create_task(watches(person)) for person in people]
        for _ in range(3):
            assert not any(step.warning for step in await rebuilt(live_site))
        over.set()
        await asyncio.gather(*tasks)
        written.set()
    for person, seen in zip(people, watched, strict=True):
        uids = list((await select(live_site, person)).uids)
        assert len(appended[person.id]) > 3
        assert uids[-len(appended[person.id]) :] == appended[person.id]
        assert seen.result() == len(uids)
    before = await dump(live_site)
    await rebuilt(live_site)
    assert await dump(live_site) == before


@pytest.mark.parametrize("after", [1, 2, 3, 4])
async def test_who_stops_a_rebuild_leaves_the_living_tables(live_site: Live, after: int) -> None:
    person = await lived_in(live_site)
    before, oid = await dump(live_site), await tables_oid(live_site)
    async with aclosing(rebuild(live_site.parts.database, live_site.parts.log, live_site.parts.partitions)) as steps:
        for _ in range(after):
            await anext(steps)
    assert await dump(live_site) == before and await tables_oid(live_site) == oid
    assert await schemas(live_site) == {"live", "site"}
    assert (await append(live_site, person, MESSAGE)).uids == (6,)


async def test_a_killed_rebuild_leaves_the_living_tables_and_the_next_one_clears_up(live_site: Live) -> None:
    person = await lived_in(live_site)
    before, oid = await dump(live_site), await tables_oid(live_site)
    steps = rebuild(live_site.parts.database, live_site.parts.log, live_site.parts.partitions)
    await anext(steps)
    killed = await live_site.parts.database.fetch(
        "SELECT pid, pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name IN ('angarium next', 'angarium site')"
    )
    assert len(killed) == 2
    with contextlib.suppress(Exception):
        await anext(steps)
    await steps.aclose()
    assert await schemas(live_site) == {"live", "next", "site"}
    assert await dump(live_site) == before and await tables_oid(live_site) == oid
    await rebuilt(live_site)
    assert await dump(live_site) == before and await schemas(live_site) == {"live", "site"}
    assert (await append(live_site, person, MESSAGE)).uids == (6,)


async def test_there_is_one_rebuild_at_a_time(live_site: Live) -> None:
    await lived_in(live_site)
    async with aclosing(rebuild(live_site.parts.database, live_site.parts.log, live_site.parts.partitions)) as first:
        await anext(first)
        with pytest.raises(RebuildRefused, match="under way"):
            await rebuilt(live_site)
        assert "next" in await schemas(live_site)
        assert not any([step.warning async for step in first])


async def test_damaged_tables_are_healed_and_the_projector_forgets_what_it_knew_of_them(live_site: Live) -> None:
    person = await lived_in(live_site)
    before = await dump(live_site)
    inbox = (await select(live_site, person)).status.mailbox.id
    await live_site.parts.database.run("DELETE FROM message WHERE mailbox = $1", inbox)
    await live_site.parts.database.run("UPDATE mailbox SET uidnext = 3, messages = 77 WHERE id = $1", inbox)
    await live_site.parts.database.run("UPDATE folded SET digest = $1, events = 1", bytes(32))
    steps = await rebuilt(live_site)
    # Nothing was ever queued: of that partition the tables say nothing.
    assert steps[-1] == Progress(
        "tables that were not as the log has them", len(before["folded"]), 0, "partitions", warning=True
    )
    assert await dump(live_site) == before
    assert (await append(live_site, person, MESSAGE)).uids == (6,)


async def test_a_reader_amid_a_transaction_sees_the_same_tables_to_its_end(live_site: Live) -> None:
    person = await lived_in(live_site)
    inbox = (await select(live_site, person)).status.mailbox.id
    query = "SELECT to_regclass('live.flag')::oid::bigint AS oid, count(*) AS n FROM flag WHERE mailbox = $1"
    async with live_site.parts.database.connection() as db, asyncio.TaskGroup() as group:
        transaction = db.transaction(isolation="repeatable_read", readonly=True)
        await transaction.start()
        first = await db.fetchrow(query, inbox)
        going = group.create_task(rebuilt(live_site))
        # The exchange is kept waiting by this transaction, which others can see.
        await eventually(lambda: _somebody_waits(live_site), 30)
        assert await db.fetchrow(query, inbox) == first and not going.done()
        await transaction.commit()
        await going
        after = await db.fetchrow(query, inbox)
    assert first is not None and after is not None
    assert first["n"] == after["n"] and first["oid"] != after["oid"]


async def _somebody_waits(live: Live) -> bool:
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
    return bool(await live.parts.database.fetch(waiting))
