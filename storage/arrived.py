"""Whether mail that a lost tail took in came again meanwhile: its sender had no answer, and tried another site.

RFC 5321 §4.5.4.1: who got no answer tries again; the copies differ in what relays wrote at their heads and in nothing else.
"""

import hashlib

import msgspec

from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.line import Line, Thing
from cluster.domain.mailbox.salvage import Told
from cluster.formats import mime
from storage.alike import message_id
from storage.blobs import BlobCorrupt, BlobMissing, Blobs

# RFC 5321 §4.4: trace fields; RFC 9228: Delivered-To.
TRACE_FIELDS = (b"received", b"return-path", b"delivered-to")

_description = msgspec.msgpack.Decoder(mime.Description)


class Arrived:
    """`meanwhile` for the deliveries of one tail, in their order: each message of history stands for one of them."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._matched: set[Thing] = set()

    async def meanwhile(self, told: Told, now: Line, then: Line) -> Thing | None:
        """The message in history that is this delivery's, in the same mailbox. Raises BlobsUnavailable."""
        ours = told.event
        for thing, content in now.delivered.get((told.account, _mailbox(told, now)), ()):
            # What the tail made itself is another delivery of it.
            if thing not in then.made and thing not in self._matched and await self._is_same(ours.content, content):  # type: ignore[union-attr]
                self._matched.add(thing)
                return thing
        return None

    def sent_again(self, told: Told, now: Line, then: Line) -> list[tuple[Thing, bool]]:
        """Of what a client brought, or was filed for it: the messages with its Message-ID that came meanwhile into the same
        mailbox and are there, and whether they were filed."""
        ours = message_id(told.event.content.description)  # type: ignore[union-attr]
        came = now.brought.get((told.account, _mailbox(told, now)), ()) if ours else ()
        return [
            (thing, filed)
            for thing, content, filed in came
            if thing not in then.made and thing in now.places and message_id(content.description) == ours
        ]

    async def _is_same(self, one: Content, other: Content) -> bool:
        if one.hash == other.hash:
            return True
        first, second = _described(one), _described(other)
        if first is None or second is None or not first.message_id or first.message_id != second.message_id:
            return False
        if one.size - first.header_bytes != other.size - second.header_bytes:
            return False
        try:
            return await self._bare(one, first.header_bytes) == await self._bare(other, second.header_bytes)
        except (BlobMissing, BlobCorrupt):
            return False  # Better twice than not at all.

    async def _bare(self, content: Content, header_bytes: int) -> bytes:
        """The digest of a message without its trace fields."""
        header = b"".join([piece async for piece in self._blobs.read(content.segments, 0, header_bytes)])
        digest = hashlib.sha256(without_trace(header))
        async for piece in self._blobs.read(content.segments, header_bytes):
            digest.update(piece)
        return digest.digest()


def _mailbox(told: Told, now: Line) -> int:
    """Into which it came, as history knows it."""
    mailbox = told.effect.target
    if now.box(told.account, mailbox) is not None:
        return mailbox
    return now.account(told.account).names.get(told.effect.names.get(mailbox, ""), 0)


def without_trace(header: bytes) -> bytes:
    """RFC 5322 §2.2.3: a line that begins with a space belongs to the field before it."""
    kept: list[bytes] = []
    is_trace = False
    for line in header.splitlines(keepends=True):
        if line[:1] not in (b" ", b"\t"):
            is_trace = line.partition(b":")[0].strip().lower() in TRACE_FIELDS
        if not is_trace:
            kept.append(line)
    return b"".join(kept)


def _described(content: Content) -> mime.Description | None:
    try:
        return _description.decode(content.description)
    except msgspec.MsgspecError:
        return None
