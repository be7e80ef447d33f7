"""The search index of a site over the real engines: made beside the mail, from where it stood, and thrown away with it."""

from pathlib import Path

from cluster.domain.mailbox.commands import AppendMessage, CreateMailbox, DeleteMailbox, NewMessage
from storage.ingest import SpooledMessage
from storage.postgres.search_view import SearchView
from storage.search.index import Lookup, Place, SearchIndex
from storage.search.indexer import TAIL_MESSAGES_MIN, Indexer
from storage.shapes import Done, Selected
from tests.live import ACTOR, Live, Person

BODY = ("body",)


class Desk:
    """An index of its own in a folder, made on demand."""

    def __init__(self, live: Live, folder: Path) -> None:
        self.live, self.index, self.view = live, SearchIndex(folder), SearchView(live.parts.database)
        self.ahead_s = 0.0

    def indexer(self) -> Indexer:
        return Indexer(
            self.index, self.view, self.live.parts.blobs, now=lambda: self.live.world.now() + self.ahead_s, rest=0
        )

    async def found(self, place: Place, text: str) -> tuple[set[int], set[int], list[tuple[int, int]]]:
        (told,) = await self.index.look_up(place, [Lookup(BODY, text, exact=True)])
        return (set(told.surely), set(told.perhaps), list(told.spans)) if told is not None else (set(), set(), [])


async def send(live: Live, person: Person, bodies: list[str], mailbox: str = "INBOX") -> None:
    await live.site.mailboxes(person.id)
    spooled: list[SpooledMessage] = []
    for number, body in enumerate(bodies):
        ingest = live.site.ingest(1 << 20)
        await ingest.feed(f"Subject: {number}\r\n\r\n{body}\r\n".encode())
        message = await ingest.finish()
        assert isinstance(message, SpooledMessage)
        spooled.append(message)
    new = tuple(NewMessage(message.content, 1_700_000_000, 0, 0, ()) for message in spooled)
    assert isinstance(await live.site.execute(ACTOR, AppendMessage(person.id, mailbox, new), spooled), Done)
    for message in spooled:
        message.release()


async def place_of(live: Live, person: Person, mailbox: str = "INBOX") -> Place:
    selected = await live.site.select(person.id, mailbox)
    assert isinstance(selected, Selected)
    return Place(selected.status.mailbox.id, selected.status.mailbox.uidvalidity)


async def test_it_follows_the_mail_and_goes_on_where_it_stood(live_site: Live, tmp_path: Path) -> None:
    person, desk = await live_site.person(), Desk(live_site, tmp_path)
    await send(live_site, person, [f"word{n} plain" for n in range(TAIL_MESSAGES_MIN - 1)])
    place = await place_of(live_site, person)
    await desk.indexer().round()
    assert desk.index.segments(place) == []  # so few are read
    await send(live_site, person, ["last schön"])
    await desk.indexer().round()
    assert await desk.found(place, "ord7") == ({8}, set(), [(1, TAIL_MESSAGES_MIN)])
    assert await desk.found(place, "schön") == ({TAIL_MESSAGES_MIN}, set(), [(1, TAIL_MESSAGES_MIN)])
    await send(live_site, person, [f"later{n}" for n in range(TAIL_MESSAGES_MIN)])
    fresh = Desk(live_site, tmp_path)  # another process, after a crash
    indexed, waiting, size, _ = await fresh.indexer().round()
    assert await fresh.found(place, "later0") == ({TAIL_MESSAGES_MIN + 1}, set(), [(1, 2 * TAIL_MESSAGES_MIN)])
    assert len(fresh.index.segments(place)) == 1  # joined
    assert indexed >= 2 * TAIL_MESSAGES_MIN and waiting == 0 and size > 0


async def test_what_was_thrown_away_is_made_again(live_site: Live, tmp_path: Path) -> None:
    person, desk = await live_site.person(), Desk(live_site, tmp_path)
    await send(live_site, person, [f"again{n}" for n in range(TAIL_MESSAGES_MIN)])
    place = await place_of(live_site, person)
    await desk.indexer().round()
    before = await desk.found(place, "again1")
    desk.index.forget(place)
    await Desk(live_site, tmp_path).indexer().round()
    assert await Desk(live_site, tmp_path).found(place, "again1") == before
    assert before[0]


async def test_a_damaged_part_is_made_again(live_site: Live, tmp_path: Path) -> None:
    person, desk = await live_site.person(), Desk(live_site, tmp_path)
    place = None
    for number in range(4):  # 128, 64 and 64 are joined; so are 192 and 64
        await send(live_site, person, [f"part{number} {n}" for n in range(TAIL_MESSAGES_MIN)])
        await desk.indexer().round()
    place = await place_of(live_site, person)
    first, *others = desk.index.segments(place)
    assert others
    first.path.write_bytes(first.path.read_bytes()[:100])
    fresh = Desk(live_site, tmp_path)
    assert (await fresh.found(place, "part0"))[0] == set()  # and so they are read
    assert not first.path.exists()
    await fresh.indexer().round()
    assert (await fresh.found(place, "part0"))[0] == set(range(1, TAIL_MESSAGES_MIN + 1))
    assert (await fresh.found(place, "part3"))[0] == set(range(3 * TAIL_MESSAGES_MIN + 1, 4 * TAIL_MESSAGES_MIN + 1))


async def test_it_goes_with_its_mailbox(live_site: Live, tmp_path: Path) -> None:
    person, desk = await live_site.person(), Desk(live_site, tmp_path)
    await live_site.site.mailboxes(person.id)
    created = await live_site.site.execute(ACTOR, CreateMailbox(person.id, "Old", (live_site.world.new_id(),)))
    assert isinstance(created, Done)
    await send(live_site, person, [f"old{n}" for n in range(TAIL_MESSAGES_MIN)], "Old")
    place = await place_of(live_site, person, "Old")
    await desk.indexer().round()
    assert desk.index.segments(place)
    assert isinstance(await live_site.site.execute(ACTOR, DeleteMailbox(person.id, "Old")), Done)
    await desk.indexer().round()
    assert place not in desk.index.places()


async def test_content_that_is_not_here_is_waited_for_and_then_left_to_be_read(live_site: Live, tmp_path: Path) -> None:
    person, desk = await live_site.person(), Desk(live_site, tmp_path)
    await send(live_site, person, [f"gone{n} {person.address}" for n in range(TAIL_MESSAGES_MIN)])
    place = await place_of(live_site, person)
    rows = await desk.view.rows(place.mailbox, 2, 1)
    for segment in rows[0].content.segments:
        await live_site.parts.blobs.delete(segment.hash)
    assert (await desk.indexer().round()).waiting >= TAIL_MESSAGES_MIN
    assert desk.index.segments(place) == []
    desk.ahead_s = 7200.0
    await desk.indexer().round()
    surely, perhaps, spans = await desk.found(place, "gone")
    assert (surely, perhaps) == (set(range(1, TAIL_MESSAGES_MIN + 1)) - {3}, {3})
    assert spans == [(1, TAIL_MESSAGES_MIN)]
