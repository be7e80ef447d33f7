"""Event ↔ bytes. The one place that knows the wire form of facts and lifts old versions of them.

An envelope is a MessagePack map, so that anyone may read the log with a plain MessagePack reader:
`v` version of the envelope, `at` unix microseconds, `by` actor, `id` command id (16 bytes), `n` which of the command's
events this is (0-based: the fold knows a repeated one by both), `cause` command id of what led to it, `noun`, `data` (a
map whose `type` is the fact's name and version).
"""

import re
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


class Newer(Undecodable):
    """A fact of a later release, in good order as far as this one can tell: waited at. `event`: its name."""

    def __init__(self, event: str) -> None:
        super().__init__(f"{event} is newer than this release knows")
        self.event = event


class _Outside(msgspec.Struct):
    """What every version of the envelope has."""

    v: int
    noun: str
    data: msgspec.Raw


class _Typed(msgspec.Struct):
    type: str


NOUNS: dict[str, Any] = {"mailbox": mailbox.AnyEvent, "directory": directory.AnyEvent, "outbox": outbox.AnyEvent}

_encoder = msgspec.msgpack.Encoder()
_envelope = msgspec.msgpack.Decoder(Envelope)
_outside = msgspec.msgpack.Decoder(_Outside)
_typed = msgspec.msgpack.Decoder(_Typed)
_TYPE = re.compile(r"[A-Z][A-Za-z]*\.[1-9][0-9]{0,3}")
_data = {noun: msgspec.msgpack.Decoder(union) for noun, union in NOUNS.items()}
_TYPES = {noun: {kind.__struct_config__.tag for kind in union.__args__} for noun, union in NOUNS.items()}
_noun_of = {kind: noun for noun, union in NOUNS.items() for kind in union.__args__}


def noun_of(event: msgspec.Struct) -> str:
    return _noun_of[type(event)]


def encode(event: msgspec.Struct, *, at_us: int, by: Actor, command: bytes, n: int = 0, cause: bytes = b"") -> bytes:
    data = msgspec.Raw(_encoder.encode(event))
    return _encoder.encode(Envelope(ENVELOPE_VERSION, at_us, by, command, noun_of(event), data, n, cause))


def decode(payload: bytes) -> tuple[Envelope, Any]:
    """(envelope, event). Raises Undecodable; Newer where a later release would know it."""
    try:
        envelope = _envelope.decode(payload)
        if envelope.v <= ENVELOPE_VERSION:
            return envelope, _data[envelope.noun].decode(envelope.data)
        why = f"envelope version {envelope.v}"
    # A string that is not UTF-8 and nesting without end have exceptions of their own.
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError, RecursionError) as error:
        why = str(error)
    if (newer := _newer(payload)) is not None:
        raise Newer(newer)
    raise Undecodable(why)


def _newer(payload: bytes) -> str | None:
    """The name of a fact that this release has not. What is damaged, or a known fact with data that it cannot have, is
    none of a later release."""
    try:
        outside = _outside.decode(payload)
        type = _typed.decode(outside.data).type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not _TYPE.fullmatch(type) or outside.v < ENVELOPE_VERSION:
        return None
    known = outside.noun in NOUNS and type in _TYPES[outside.noun]
    return type if outside.v > ENVELOPE_VERSION or not known else None
