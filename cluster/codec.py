"""Event ↔ bytes. The one place that knows the wire form of facts and lifts old versions of them.

An envelope is a MessagePack map, so that anyone may read the log with a plain MessagePack reader:
`v` version of the envelope, `at` unix microseconds, `by` actor, `id` command id (16 bytes), `n` which of the command's
events this is (0-based: the fold knows a repeated one by both), `cause` command id of what led to it, `noun`, `data` (a
map whose `type` is the fact's name and version).
"""

from typing import Any

import msgspec

from cluster.domain.actor import Actor
from cluster.domain.directory import events as directory
from cluster.domain.mailbox import events as mailbox
from cluster.domain.outbox import events as outbox

ENVELOPE_VERSION = 1


class Envelope(msgspec.Struct, frozen=True, omit_defaults=True):
    v: int
    at: int
    by: Actor
    id: bytes
    noun: str
    data: msgspec.Raw
    n: int = 0
    cause: bytes = b""


class Undecodable(Exception):
    """These bytes are no event that this release knows: quarantined or waited at by who reads them."""


NOUNS: dict[str, Any] = {"mailbox": mailbox.AnyEvent, "directory": directory.AnyEvent, "outbox": outbox.AnyEvent}

_encoder = msgspec.msgpack.Encoder()
_envelope = msgspec.msgpack.Decoder(Envelope)
_data = {noun: msgspec.msgpack.Decoder(union) for noun, union in NOUNS.items()}
_noun_of = {kind: noun for noun, union in NOUNS.items() for kind in union.__args__}


def noun_of(event: msgspec.Struct) -> str:
    return _noun_of[type(event)]


def encode(event: msgspec.Struct, *, at_us: int, by: Actor, command: bytes, n: int = 0, cause: bytes = b"") -> bytes:
    data = msgspec.Raw(_encoder.encode(event))
    return _encoder.encode(Envelope(ENVELOPE_VERSION, at_us, by, command, noun_of(event), data, n, cause))


def decode(payload: bytes) -> tuple[Envelope, Any]:
    """(envelope, event). Raises Undecodable."""
    try:
        envelope = _envelope.decode(payload)
        if envelope.v > ENVELOPE_VERSION:
            raise Undecodable(f"envelope version {envelope.v} is newer than this release knows")
        return envelope, _data[envelope.noun].decode(envelope.data)
    # A string that is not UTF-8 and nesting without end have exceptions of their own.
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError, RecursionError) as error:
        raise Undecodable(str(error)) from error
