"""Salvage with real content, of every noun, and what a site's own tables show afterwards."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from cluster import codec
from cluster.domain.actor import Actor
from cluster.domain.directory import events as d
from cluster.domain.directory.state import DirectoryState
from cluster.domain.directory.state import evolve as directory_evolve
from cluster.domain.mailbox import events as m
from cluster.domain.mailbox.content import Content, Segment
from cluster.domain.mailbox.names import FILED, SENT
from cluster.domain.outbox import events as o
from cluster.formats import mime
from cluster.log.model import INLINE_BYTES_MAX, Record
from cluster.position import position
from cluster.tokens import judged
from node.config import Config
from storage.blobs.memory import MemoryBlobs
from storage.postgres.mail_view import MailView
from storage.postgres.pool import Database
from storage.projector import Fold
from storage.salvage import Salvage, Salvaged
from tests.laws.tables_of_law import Site, folded, site_tables
from tests.lost_tails import LosingLog
from tests.memory_site import MemoryWorld
from tests.sim.world.tables import Tables

ANNA, INBOX, ARCHIVE = 7, 70, 71
LETTER = b"Message-ID: <one@a.org>\r\nSubject: one\r\n\r\nhello\r\n"
TRACED = b"Received: from a by b\r\n\twith SMTP\r\nReturn-Path: <bo@a.org>\r\n" + LETTER
OTHER = LETTER.replace(b"hello", b"howdy")


def content_of(data: bytes) -> Content:
    described = mime.describe(data)
    pieces = tuple(data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20))
    segments = tuple(Segment(hashlib.sha256(piece).digest(), len(piece)) for piece in pieces)
    return Content(
        hashlib.sha256(data).digest(), len(data), segments, msgspec.msgpack.encode(described), described.sent
    )


class Partition:
    """Its log, and what lies at the site that salvages."""

    def __init__(self, *opening: Any) -> None:
        self.log = LosingLog()
        self.blobs = MemoryBlobs()
        self.count = 0
        for event in opening:
            self.tell(event)

    def tell(self, *events: Any, entity: str = str(ANNA), command: bytes = b"") -> bytes:
        self.count += 1
        command = command or self.count.to_bytes(16, "little")
        for n, event in enumerate(events):
            self.log.put(entity, event, command, n)
        return command

    def letter(
        self,
        data: bytes,
        mailbox: int = INBOX,
        *,
        delivered: bool = True,
        command: bytes = b"",
        keywords: tuple[str, ...] = (),
    ) -> bytes:
        """With its content before it, as the log has it."""
        content = content_of(data)
        for number, segment in enumerate(content.segments):
            piece = data[number << 20 : (number + 1) << 20]
            assert len(piece) == segment.size
            self.log._keep("", str(ANNA), piece, segment.hash)
        return self.tell(m.MessageAppended(mailbox, content, 5, delivered=delivered, keywords=keywords), command=command)

    def lose_after(self, count: int) -> None:
        """All but the first records of the present epoch."""
        self.log.lose(len(self.log.streams[self.log.epoch]) - count)

    @property
    def end(self) -> int:
        return len(self.log.streams[self.log.epoch])

    async def salvage(self, salvaged: dict[int, int] | None = None) -> Salvaged:
        return await Salvage("p", self.log, self.blobs, MemoryWorld(self.count)).run(salvaged)

    def new(self) -> list[Any]:
        """The facts of the present epoch, but its first words and what says how far salvage came."""
        return [
            event
            for event in self.facts(self.log.streams[self.log.epoch])
            if not isinstance(event, m.EpochStarted | m.TailSalvaged)
        ]

    def facts(self, records: Sequence[Record]) -> list[Any]:
        return [codec.decode(record.payload)[1] for record in records if record.noun]

    def reports(self) -> list[m.SalvageReported]:
        return [event for event in self.new() if isinstance(event, m.SalvageReported)]

    def hashes(self) -> set[bytes]:
        """Of the content that the present epoch carries."""
        return {record.hash for record in self.log.streams[self.log.epoch] if not record.noun}


@pytest.fixture
def mail() -> Partition:
    return Partition(m.MailboxesCreated((m.Made(INBOX, "INBOX"), m.Made(ARCHIVE, "Archive", "\\Archive"))))


async def test_content_rides_with_its_message_or_ahead_of_it(mail: Partition) -> None:
    kept, large = mail.end, b"Subject: large\r\n\r\n" + bytes(range(256)) * 6_000
    mail.letter(LETTER)
    mail.letter(large)
    assert len(content_of(large).segments) == 2 and len(large) > INLINE_BYTES_MAX
    mail.lose_after(kept)
    outcome = await mail.salvage()
    assert (outcome.again, outcome.reported) == (2, 0)
    wanted = {segment.hash for data in (LETTER, large) for segment in content_of(data).segments}
    assert mail.hashes() == wanted
    stream = mail.log.streams[2]
    for at, record in enumerate(stream):
        if record.noun and isinstance(event := codec.decode(record.payload)[1], m.MessageAppended):
            before = {each.hash for each in stream[:at]}
            assert all(segment.hash in before for segment in event.content.segments)


async def test_content_that_left_the_tail_is_carried_from_the_blobs(mail: Partition) -> None:
    kept = mail.end
    mail.letter(LETTER)
    content = [record for record in mail.log.streams[1][kept:] if not record.noun]
    await mail.blobs.intake().take(content)
    mail.log.streams[1] = [
        record if record.noun else msgspec.structs.replace(record, payload=b"", chunks=9, chunk=8)
        for record in mail.log.streams[1]
    ]
    mail.lose_after(kept)
    await mail.salvage()
    assert mail.hashes() == {segment.hash for segment in content_of(LETTER).segments}


@pytest.mark.parametrize(
    ("meanwhile", "copies"), [(LETTER, 1), (TRACED, 1), (OTHER, 2), (LETTER.replace(b"<one@", b"<two@"), 2)]
)
async def test_mail_that_its_sender_gave_again_is_there_once(mail: Partition, meanwhile: bytes, copies: int) -> None:
    kept = mail.end
    command = mail.letter(LETTER)
    mail.tell(m.FlagsChanged(INBOX, ((1, 1),), m.FlagMode.ADD, m.SEEN))
    mail.tell(m.MessagesCopied(INBOX, ARCHIVE, ((1, 1),), moved=True))
    mail.tell(m.FlagsChanged(ARCHIVE, ((1, 1),), m.FlagMode.ADD, m.FLAGGED))
    mail.lose_after(kept)
    mail.letter(meanwhile)
    for data in (LETTER, meanwhile):
        content = content_of(data)
        await mail.blobs.intake().take([Record(1, "", "7", data, content.segments[0].hash)])
    outcome = await mail.salvage()
    state = Tables.of([record for record in mail.log.records() if record.noun]).state.accounts[ANNA]
    # What was done with it in the tail was done to the one that is there, and to nothing else.
    assert [one.flags for one in state.boxes[ARCHIVE].messages.values()] == [m.SEEN | m.FLAGGED]
    assert len(state.boxes[INBOX].messages) == copies - 1 and outcome.reported == 0
    ids = [codec.decode(record.payload)[0].id for record in mail.log.records() if record.noun]
    assert (command in ids) == (copies == 2)
    # And the same again for whoever was killed before the flags: what it matched then it matches now.
    before = len(mail.log.records())
    await mail.salvage()
    assert len(mail.log.records()) == before


async def test_mail_given_twice_in_the_tail_is_there_twice_and_once_meanwhile_stands_for_one(mail: Partition) -> None:
    kept = mail.end
    mail.letter(LETTER)
    mail.letter(LETTER)
    mail.lose_after(kept)
    mail.letter(LETTER)
    await mail.salvage()
    state = Tables.of([record for record in mail.log.records() if record.noun]).state.accounts[ANNA]
    assert len(state.boxes[INBOX].messages) == 2


async def test_a_delivery_of_the_tail_is_not_taken_for_one_of_its_own(mail: Partition) -> None:
    """What was decided again is in history when the second one is looked at."""
    kept = mail.end
    mail.letter(LETTER)
    mail.tell(m.FlagsChanged(INBOX, ((1, 1),), m.FlagMode.ADD, m.SEEN))
    mail.letter(LETTER)
    mail.tell(m.FlagsChanged(INBOX, ((2, 2),), m.FlagMode.ADD, m.FLAGGED))
    mail.lose_after(kept)
    await mail.salvage()
    state = Tables.of([record for record in mail.log.records() if record.noun]).state.accounts[ANNA]
    assert [one.flags for one in state.boxes[INBOX].messages.values()] == [m.SEEN, m.FLAGGED]


@pytest.mark.parametrize("filed_first", [True, False])
async def test_what_was_sent_is_there_once_whichever_copy_was_lost(mail: Partition, filed_first: bool) -> None:
    """The copy that was filed for its sender, and the one of the mail program, of which one lies in the tail."""
    mail.tell(m.MailboxesCreated((m.Made(75, "Sent", SENT),)))
    kept = mail.end
    filed, own = (FILED,), ()
    mail.letter(LETTER, 75, delivered=False, keywords=filed if filed_first else own)
    mail.letter(LETTER.replace(b"one@", b"two@"), 75, delivered=False, keywords=filed)
    mail.lose_after(kept)
    mail.letter(b"Received: once more\r\n" + LETTER, 75, delivered=False, keywords=own if filed_first else filed)
    await mail.salvage()
    state = Tables.of([record for record in mail.log.records() if record.noun]).state.accounts[ANNA]
    assert sorted(one.keywords for one in state.boxes[75].messages.values()) == [own, filed]
    assert not mail.reports()


async def test_what_was_restored_in_a_tail_comes_back_once(mail: Partition) -> None:
    for data in (LETTER, OTHER, TRACED):
        mail.letter(data)
    mail.tell(m.MessagesExpunged(INBOX, ((3, 3),), only_deleted=False))
    given_up = position(1, mail.end)
    mail.tell(m.MessagesExpunged(INBOX, ((1, 2),), only_deleted=False))
    kept = mail.end
    restored = mail.tell(m.MessagesRestored(INBOX, ARCHIVE, ((2, 2),)))
    mail.tell(m.MessagesRestored(INBOX, INBOX, ((3, 3),)))
    mail.tell(m.MessagesRestored(INBOX, INBOX, ((1, 1),)))
    mail.tell(m.FlagsChanged(ARCHIVE, ((1, 1),), m.FlagMode.ADD, m.FLAGGED))
    mail.lose_after(kept)
    mail.tell(m.MessagesRestored(INBOX, ARCHIVE, ((3, 3),)))
    mail.tell(m.ExpungedGivenUp(given_up))
    await mail.salvage()
    tables = Tables.of([record for record in mail.log.records() if record.noun])
    state = tables.state.accounts[ANNA]
    assert not state.boxes[INBOX].messages and restored in tables.commands
    assert [(one.content.hash, one.flags) for one in state.boxes[ARCHIVE].messages.values()] == [
        (content_of(OTHER).hash, 0),
        (content_of(LETTER).hash, m.FLAGGED),
    ]
    assert [(report.what, report.why) for report in mail.reports()] == [
        ("Restoring of 1 message in 'INBOX'", "They cannot be restored any more."),
    ]
    await mail.salvage()
    assert len(mail.reports()) == 1


async def test_what_would_undo_what_people_did_is_reported(mail: Partition) -> None:
    mail.letter(LETTER)
    mail.letter(OTHER)
    mail.tell(m.MailboxesCreated((m.Made(72, "a"), m.Made(73, "b"), m.Made(74, "c"))))
    kept = mail.end
    mail.tell(m.MailboxesRenamed(((72, "x"),)))
    mail.tell(m.MailboxDeleted(73))
    mail.tell(m.FlagsChanged(INBOX, ((1, 1),), m.FlagMode.ADD, m.FLAGGED))
    mail.tell(m.FlagsChanged(INBOX, ((2, 2),), m.FlagMode.ADD, m.DELETED))
    mail.tell(m.MessagesExpunged(INBOX, ((2, 2),)))
    into_c = mail.letter(LETTER, 74, delivered=False)
    mail.lose_after(kept)
    mail.tell(m.MailboxesRenamed(((72, "y"),)))
    mail.letter(OTHER, 73)
    mail.tell(m.MessagesExpunged(INBOX, ((1, 1),), only_deleted=False))
    mail.tell(m.MailboxDeleted(74))
    outcome = await mail.salvage()
    assert [(report.what, report.why) for report in mail.reports()] == [
        ("Renaming of 'a' to 'x'", "'a' was renamed to 'y' meanwhile."),
        ("Deletion of 'b'", "1 message came into it meanwhile."),
        ("New flags of 1 message in 'INBOX'", "It is not there any more."),
    ]
    assert outcome.reported == 3
    # Each report carries the fact, for whoever applies it by hand.
    assert [codec.decode(report.event)[1] for report in mail.reports()] == [
        m.MailboxesRenamed(((72, "x"),)),
        m.MailboxDeleted(73),
        m.FlagsChanged(INBOX, ((1, 1),), m.FlagMode.ADD, m.FLAGGED),
    ]
    tables = Tables.of([record for record in mail.log.records() if record.noun])
    state = tables.state.accounts[ANNA]
    assert not tables.quarantined and not state.boxes[INBOX].messages
    # A mailbox that is gone is made again, under another id and UIDVALIDITY, for what was acknowledged.
    anew = state.boxes[state.names["c"]]
    assert anew.id != 74 and anew.uidvalidity == state.uidvalidity and len(anew.messages) == 1
    assert into_c in tables.commands


async def test_what_was_taken_back_meanwhile_is_not_expunged(mail: Partition) -> None:
    mail.letter(LETTER)
    mail.letter(OTHER)
    mail.tell(m.FlagsChanged(INBOX, ((1, 2),), m.FlagMode.ADD, m.DELETED))
    kept = mail.end
    mail.tell(m.MessagesExpunged(INBOX, ((1, 2),)))
    mail.lose_after(kept)
    mail.tell(m.FlagsChanged(INBOX, ((1, 1),), m.FlagMode.REMOVE, m.DELETED))
    await mail.salvage()
    state = Tables.of([record for record in mail.log.records() if record.noun]).state.accounts[ANNA]
    assert list(state.boxes[INBOX].messages) == [1]
    assert [(report.what, report.why) for report in mail.reports()] == [
        ("Expunging of 1 message in 'INBOX'", "They are not marked as deleted any more.")
    ]


async def test_a_report_is_no_outcome(mail: Partition) -> None:
    mail.letter(LETTER)
    kept = mail.end
    command = mail.tell(m.FlagsChanged(INBOX, ((1, 1),), m.FlagMode.ADD, m.FLAGGED))
    mail.lose_after(kept)
    mail.tell(m.MessagesExpunged(INBOX, ((1, 1),), only_deleted=False))
    await mail.salvage()
    assert len(mail.reports()) == 1
    assert command not in Tables.of([record for record in mail.log.records() if record.noun]).commands


async def test_a_command_for_many_people_is_salvaged_whole() -> None:
    people = range(1, 400)
    mail = Partition()
    for person in people:
        mail.tell(m.MailboxesCreated((m.Made(1000 + person, "INBOX"),)), entity=str(person))
    kept = mail.end
    content = content_of(LETTER)
    for n, person in enumerate(people):
        mail.log.put(str(person), m.MessageAppended(1000 + person, content, 5, delivered=True), b"many" * 4, n)
    mail.lose_after(kept)
    outcome = await mail.salvage()
    tables = Tables.of([record for record in mail.log.records() if record.noun])
    assert outcome.again == 1
    assert all(len(tables.state.accounts[person].boxes[1000 + person].messages) == 1 for person in people)
    told = [event for event in mail.new() if isinstance(event, m.Reaffirmed)]
    assert len({event.mailbox for event in told}) == len(people)
    assert tables.state.salvaged == {1: len(mail.log.streams[1])}


async def test_what_cannot_be_read_is_reported_and_stops_nothing(mail: Partition) -> None:
    kept = mail.end
    mail.log._keep("mailbox", str(ANNA), b"\xc1 no event")
    mail.letter(LETTER)
    mail.lose_after(kept)
    outcome = await mail.salvage()
    assert (outcome.again, outcome.reported) == (1, 1)
    (report,) = mail.reports()
    assert (report.position, report.event) == (position(1, kept + 1), b"\xc1 no event")


async def test_where_the_tables_say_that_all_is_done_nothing_is_read(mail: Partition) -> None:
    kept = mail.end
    mail.letter(LETTER)
    mail.lose_after(kept)
    assert (await mail.salvage({1: kept + 1})).again == 1
    assert (await mail.salvage({1: len(mail.log.streams[1])})) == Salvaged()


# -- the directory ----------------------------------------------------------------------------------------------------


async def test_the_directory_is_decided_again() -> None:
    one, two, three = (d.Verifier(f"$argon2id${n}") for n in (1, 2, 3))
    place = Partition()

    def tell(event: Any) -> None:
        place.tell(event, entity="a.org")

    tell(d.DomainAdded("a.org"))
    tell(d.AccountAdded(1, "anna@a.org", "p", "Anna", one))
    tell(d.AccountAdded(2, "bo@a.org", "p", "Bo", one))
    tell(d.GroupAdded("all@a.org", "All", ("anna@a.org",)))
    kept = place.end
    tell(d.AccountAdded(3, "carl@a.org", "p", "Carl", three))
    tell(d.PasswordChanged(3, "carl@a.org", one))
    tell(d.PasswordChanged(1, "anna@a.org", two))
    tell(d.PasswordChanged(2, "bo@a.org", two))
    tell(d.GroupMembersChanged("all@a.org", ("carl@a.org",)))
    tell(d.AliasAdded("info@a.org", ("anna@a.org",)))
    tell(d.AliasAdded("help@a.org", ("anna@a.org",)))
    tell(d.AppPasswordAdded(1, "anna@a.org", "phone", one))
    tell(d.AccountChanged(2, "bo@a.org", "Bo B."))
    tell(d.DomainAdded("b.org"))
    tell(d.AliasAdded("x@a.org", ("bo@a.org",)))
    tell(d.AliasRemoved("x@a.org"))
    place.lose_after(kept)
    tell(d.PasswordChanged(1, "anna@a.org", three))
    tell(d.AliasAdded("info@a.org", ("anna@a.org",)))
    tell(d.AliasAdded("help@a.org", ("bo@a.org",)))
    outcome = await place.salvage()
    assert [(report.what, report.why) for report in place.reports()] == [
        ("PasswordChanged of anna@a.org", "It was changed meanwhile."),
        ("AliasAdded of help@a.org", "This address is taken."),
    ]
    assert outcome.reported == 2
    state = DirectoryState()
    for event in place.facts(place.log.records()):
        if codec.noun_of(event) == "directory":
            after = directory_evolve(state, event)
            assert isinstance(after, DirectoryState)
            state = after
    assert state.accounts.keys() == {1, 2, 3} and state.domains.keys() == {"a.org", "b.org"}
    entries: Any = state.entries
    assert entries["carl@a.org"].verifier == one and entries["anna@a.org"].verifier == three
    assert entries["bo@a.org"].verifier == two and entries["bo@a.org"].name == "Bo B."
    assert entries["all@a.org"].members == ("anna@a.org", "carl@a.org")
    assert set(entries["anna@a.org"].app_passwords) == {"phone"} and "x@a.org" not in entries
    before = len(place.log.records())
    await place.salvage()
    assert len(place.log.records()) == before


# -- the outbox -------------------------------------------------------------------------------------------------------


async def test_mail_on_its_way_goes_out_once_and_nobody_goes_without() -> None:
    place, content = Partition(), content_of(LETTER)

    def tell(event: Any, command: bytes = b"") -> bytes:
        return place.tell(event, entity="queue", command=command)

    tell(o.MessageQueued(1, "anna@a.org", ("x@b.org", "y@b.org"), content))
    kept = place.end
    tell(o.DeliveryAttempted(1, (o.Attempt("x@b.org", "sent", 250), o.Attempt("y@b.org", "deferred", 450)), 99))
    queued = tell(o.MessageQueued(2, "anna@a.org", ("x@b.org", "y@b.org"), content))
    tell(o.DeliveryAttempted(2, (o.Attempt("x@b.org", "sent", 250),), 99))
    tell(o.MessageQueued(3, "anna@a.org", ("x@b.org",), content))
    tell(o.DeliveryAttempted(3, (o.Attempt("x@b.org", "sent", 250),)))
    retried = tell(o.MessageQueued(4, "anna@a.org", ("x@b.org",), content))
    place.lose_after(kept)
    tell(o.MessageQueued(4, "anna@a.org", ("x@b.org",), content), retried)
    await place.salvage()
    assert [event for event in place.new() if codec.noun_of(event) == "outbox"][1:] == [
        o.DeliveryAttempted(1, (o.Attempt("x@b.org", "sent", 250),)),
        o.MessageQueued(2, "anna@a.org", ("y@b.org",), content),
    ]
    ids = [codec.decode(record.payload)[0].id for record in place.log.records() if record.noun]
    assert queued in ids and ids.count(retried) == 1 and not place.reports()
    before = len(place.log.records())
    await place.salvage()
    assert len(place.log.records()) == before


# -- the tables -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def site(engines: Config) -> AsyncIterator[Site]:
    async with site_tables(engines.database_url, "salvage_site") as made:
        yield made


async def test_a_client_of_the_lost_home_is_told_the_difference(mail: Partition, site: Site, engines: Config) -> None:
    """It saw three messages come, one be flagged and one go, at a home that nobody saw again for a while."""
    mail.letter(LETTER)
    mail.letter(OTHER)
    kept = mail.end
    mail.tell(m.FlagsChanged(INBOX, ((1, 1),), m.FlagMode.ADD, m.FLAGGED))
    mail.tell(m.MessagesExpunged(INBOX, ((2, 2),), only_deleted=False))
    mail.letter(b"Subject: tail\r\n\r\n")
    token = mail.log.streams[1][-1].position
    mail.lose_after(kept)
    mail.tell(m.FlagsChanged(INBOX, ((1, 1),), m.FlagMode.REPLACE, m.SEEN))
    await mail.salvage()
    fold = Fold(site.db, "p")
    await fold.start()
    await folded(fold, [record for record in mail.log.records() if record.noun], ())
    salvaged = dict(await site.rows("SELECT epoch, upto FROM salvaged WHERE partition = 'p'"))
    since = judged(mail.log.history(), token, salvaged)
    assert since == position(1, kept)
    database = Database(engines.database_url, schema=site.schema)
    await database.start()
    changes = await MailView(database).changes(ANNA, INBOX, since)
    await database.stop()
    new = m.UID_GAP + 3
    assert [(one.uid, one.flags) for one in changes.changed] == [(1, m.SEEN | m.FLAGGED), (new, 0)]
    assert changes.vanished == ((2, 3),)
    assert Actor("system") == codec.decode(mail.log.records()[-1].payload)[0].by
