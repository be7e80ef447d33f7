"""Facts are for ever: what this release writes it reads again, so does any MessagePack reader, and so do later releases."""

import base64
import functools
import operator
import pathlib

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import codec
from cluster.domain.actor import Actor
from cluster.domain.directory import events as d
from cluster.domain.mailbox import events as m
from cluster.domain.mailbox.content import Content, Segment
from cluster.domain.outbox import events as o

EVENTS_V1 = pathlib.Path(__file__).parent / "events-v1.msgpack"

ids = st.integers(1, (1 << 63) - 1)
texts = st.text(max_size=8)
hashes = st.binary(min_size=32, max_size=32)
segments = st.lists(st.builds(Segment, hashes, st.integers(0, 1 << 40)), max_size=3).map(tuple)
contents = st.builds(
    Content,
    hashes,
    st.integers(0, 1 << 40),
    segments,
    st.binary(max_size=9),
    st.none() | st.integers(-(1 << 40), 1 << 40),
)
ranges = st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), max_size=3).map(tuple)
words = st.lists(texts, max_size=3).map(tuple)
verifiers = st.builds(d.Verifier, texts, texts)
flags = st.integers(0, 31)
whole = st.integers(-(1 << 40), 1 << 40)

EVENTS: dict[type[msgspec.Struct], st.SearchStrategy[msgspec.Struct]] = {
    m.MailboxesCreated: st.builds(
        m.MailboxesCreated,
        st.lists(
            st.builds(m.Made, ids, texts, texts, st.booleans(), st.lists(st.tuples(texts, texts), max_size=2).map(tuple)),
            max_size=3,
        ).map(tuple),
    ),
    m.MailboxesRenamed: st.builds(m.MailboxesRenamed, st.lists(st.tuples(ids, texts), max_size=3).map(tuple)),
    m.MailboxDeleted: st.builds(m.MailboxDeleted, ids),
    m.Subscribed: st.builds(m.Subscribed, texts, st.booleans()),
    m.MessageAppended: st.builds(m.MessageAppended, ids, contents, whole, whole, flags, words, st.booleans(), ids),
    m.FlagsChanged: st.builds(m.FlagsChanged, ids, ranges, st.sampled_from(m.FlagMode), flags, words, flags),
    m.SeenChanged: st.builds(m.SeenChanged, ids, ids, ranges, st.booleans()),
    m.AnnotationsChanged: st.builds(
        m.AnnotationsChanged, ids, ids, st.lists(st.tuples(texts, st.none() | st.binary(max_size=9)), max_size=3).map(tuple)
    ),
    m.RightsChanged: st.builds(m.RightsChanged, ids, texts, texts),
    m.MessagesCopied: st.builds(m.MessagesCopied, ids, ids, ranges, st.booleans()),
    m.MessagesExpunged: st.builds(m.MessagesExpunged, ids, ranges, st.booleans(), st.booleans()),
    m.MessagesRestored: st.builds(m.MessagesRestored, ids, ids, ranges),
    m.ExpungedGivenUp: st.builds(m.ExpungedGivenUp, ids),
    m.EpochStarted: st.builds(m.EpochStarted, st.lists(st.tuples(ids, ids, st.integers(-1, 1 << 25)), max_size=3).map(tuple)),
    m.Reaffirmed: st.builds(m.Reaffirmed, ids, ids, ranges, ids, ids),
    m.TailSalvaged: st.builds(m.TailSalvaged, ids, ids),
    m.TailDestroyed: st.builds(m.TailDestroyed, ids),
    m.SalvageReported: st.builds(m.SalvageReported, ids, texts, texts, texts, texts, st.binary(max_size=9)),
    m.SalvageSettled: st.builds(m.SalvageSettled, ids, st.booleans()),
    d.DomainAdded: st.builds(d.DomainAdded, texts, texts, st.booleans()),
    d.DomainChanged: st.builds(d.DomainChanged, texts, texts, st.booleans()),
    d.UndeletePeriodChanged: st.builds(d.UndeletePeriodChanged, texts, whole),
    d.DomainRemoved: st.builds(d.DomainRemoved, texts),
    d.AccountAdded: st.builds(d.AccountAdded, ids, texts, texts, texts, st.none() | verifiers, st.booleans()),
    d.AccountChanged: st.builds(d.AccountChanged, ids, texts, texts, st.booleans(), st.booleans()),
    d.Pop3ThresholdChanged: st.builds(d.Pop3ThresholdChanged, ids, texts, whole),
    d.SentFilingChanged: st.builds(d.SentFilingChanged, ids, texts, st.booleans()),
    d.QuotaChanged: st.builds(
        d.QuotaChanged, ids, texts, st.none() | whole, st.none() | whole, st.none() | st.lists(whole).map(tuple)
    ),
    d.DomainQuotaChanged: st.builds(d.DomainQuotaChanged, texts, whole, whole, st.lists(whole).map(tuple)),
    d.AccountShared: st.builds(d.AccountShared, ids, texts),
    d.AccountRemoved: st.builds(d.AccountRemoved, ids, texts),
    d.PasswordChanged: st.builds(d.PasswordChanged, ids, texts, verifiers),
    d.AppPasswordAdded: st.builds(d.AppPasswordAdded, ids, texts, texts, verifiers),
    d.AppPasswordRevoked: st.builds(d.AppPasswordRevoked, ids, texts, texts),
    d.AliasAdded: st.builds(d.AliasAdded, texts, words),
    d.AliasRemoved: st.builds(d.AliasRemoved, texts),
    d.GroupAdded: st.builds(d.GroupAdded, texts, texts, words),
    d.GroupMembersChanged: st.builds(d.GroupMembersChanged, texts, words, words),
    d.GroupRemoved: st.builds(d.GroupRemoved, texts),
    d.TopologyChanged: st.builds(d.TopologyChanged, texts, texts, texts, texts),
    o.MessageQueued: st.builds(
        o.MessageQueued, ids, texts, words, contents, ids, st.booleans(), st.booleans(), whole, st.integers(0, 9)
    ),
    o.DeliveryAttempted: st.builds(
        o.DeliveryAttempted,
        ids,
        st.lists(st.builds(o.Attempt, texts, texts, flags, texts), max_size=3).map(tuple),
        whole,
    ),
}
events = functools.reduce(operator.or_, EVENTS.values())
actors = st.builds(Actor, texts, st.integers(0, 99), st.booleans(), texts, texts, texts, texts, texts)
KINDS = {kind for union in codec.NOUNS.values() for kind in union.__args__}


def test_every_event_is_told_here() -> None:
    assert set(EVENTS) == KINDS


@given(events, ids, actors, st.binary(min_size=16, max_size=16), st.integers(0, 99), st.binary(max_size=16))
def test_what_was_encoded_decodes_to_the_same(
    event: msgspec.Struct, at: int, by: Actor, command: bytes, n: int, cause: bytes
) -> None:
    payload = codec.encode(event, at_us=at, by=by, command=command, n=n, cause=cause)
    envelope, decoded = codec.decode(payload)
    assert decoded == event and type(decoded) is type(event)
    assert (envelope.at, envelope.by, envelope.id, envelope.n, envelope.cause) == (at, by, command, n, cause)
    assert envelope.noun == codec.noun_of(event)


@given(events, st.binary(min_size=16, max_size=16))
def test_any_messagepack_reader_reads_the_log(event: msgspec.Struct, command: bytes) -> None:
    plain = msgpack.unpackb(codec.encode(event, at_us=5, by=Actor("anna", 7), command=command))
    assert plain["v"] == 1 and plain["at"] == 5 and plain["id"] == command
    assert plain["by"] == {"name": "anna", "account": 7}
    assert plain["data"]["type"] == type(event).__struct_config__.tag
    # Fields are named, so that one may be added.
    assert set(plain["data"]) <= {"type", *(field.encode_name for field in msgspec.structs.fields(event))}


@given(st.binary(max_size=60))
def test_bytes_that_are_no_event_are_undecodable_and_nothing_else(payload: bytes) -> None:
    with pytest.raises(codec.Undecodable):
        codec.decode(payload)


@given(events, st.data())
def test_a_damaged_event_decodes_or_is_undecodable(event: msgspec.Struct, data: st.DataObject) -> None:
    payload = bytearray(codec.encode(event, at_us=5, by=Actor("anna"), command=b"c" * 16))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        codec.decode(bytes(payload))
    except codec.Undecodable:
        pass


def test_nesting_without_end_is_undecodable() -> None:
    for deep in (b"\x91" * 100_000, b"\x81\xa1x" * 100_000, b"\x81\xa4data" * 100_000):
        with pytest.raises(codec.Undecodable):
            codec.decode(deep)


def test_a_newer_release_is_not_guessed_at() -> None:
    payload = codec.encode(m.MailboxDeleted(1), at_us=5, by=Actor("anna"), command=b"c" * 16)
    with pytest.raises(codec.Undecodable):
        codec.decode(payload.replace(b"MailboxDeleted.1", b"MailboxDeleted.9"))
    plain = msgpack.unpackb(payload)
    with pytest.raises(codec.Undecodable):
        codec.decode(msgpack.packb(plain | {"v": 2}))


def test_events_of_the_first_release_still_decode() -> None:
    """The file was written once and is never written again: pairs of (payload, what it meant, as JSON)."""
    kept = msgspec.msgpack.decode(EVENTS_V1.read_bytes(), type=list[tuple[bytes, bytes]])
    first = set()
    for payload, meaning in kept:
        _, event = codec.decode(payload)
        told = msgspec.json.decode(msgspec.json.encode(event))
        # A field that came later has its default and is left out of the facts; nothing that was told is lost.
        expected = msgspec.json.decode(meaning)
        assert {key: told[key] for key in expected} == expected
        first.add(type(event))
    assert len(first) == 25


def test_hashes_in_the_kept_file_are_what_they_were() -> None:
    kept = msgspec.msgpack.decode(EVENTS_V1.read_bytes(), type=list[tuple[bytes, bytes]])
    appended = [
        event
        for _, event in map(codec.decode, (payload for payload, _ in kept))
        if isinstance(event, m.MessageAppended)
    ]
    assert [base64.b16encode(event.content.hash)[:8] for event in appended] == [b"00010203", b"00010203"]
