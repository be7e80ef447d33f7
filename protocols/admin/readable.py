"""Facts of the log as people read them, with secrets and contents masked. Pure."""

import datetime
from enum import Enum
from typing import Any

import msgspec

from cluster import position
from cluster.codec import Undecodable, decode
from cluster.domain.directory.events import Verifier
from protocols.admin.model import Event
from protocols.admin.port import Logged

MASK = "(secret)"
BYTES_SHOWN_MAX = 32
TEXT_CHARS_MAX = 500
ITEMS_SHOWN_MAX = 50
DEPTH_MAX = 8


def readable(logged: Logged) -> Event:
    record = logged.record
    place = (logged.partition, position.shown(record.position), record.noun, record.entity)
    try:
        envelope, event = decode(record.payload)
    except Undecodable as error:
        data: dict[str, object] = {"why": str(error), "bytes": len(record.payload)}
        return Event("", *place, "(undecodable)", "", "", "", "", "", 0, data)
    by = envelope.by
    data = {field: _plain(getattr(event, field), DEPTH_MAX) for field in event.__struct_fields__}
    kind = str(event.__struct_config__.tag)
    who = f"{by.name} ({by.account})" if by.account else by.name
    return Event(
        moment(envelope.at / 1e6), *place, kind, who, by.protocol, by.address, by.session, envelope.id.hex(), envelope.n, data
    )


def moment(seconds: float) -> str:
    """RFC 3339 §5.6, UTC, milliseconds."""
    at = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any, depth: int) -> object:
    """As JSON can say it. What a password is checked by is never shown, whatever holds it."""
    if depth == 0:
        return "…"
    match value:
        case Verifier():
            return MASK
        case None | bool():
            return value
        case Enum():
            return value.name.lower()
        case int():
            return value if abs(value) < 1 << 53 else str(value)
        case str():
            return value if len(value) <= TEXT_CHARS_MAX else value[:TEXT_CHARS_MAX] + "…"
        case bytes():
            return value.hex() if len(value) <= BYTES_SHOWN_MAX else f"({len(value)} bytes)"
        case msgspec.Struct():
            return {field: _plain(getattr(value, field), depth - 1) for field in value.__struct_fields__}
        case dict():
            return {str(key): _plain(item, depth - 1) for key, item in value.items()}
        case tuple() | list() | set() | frozenset():
            shown = [_plain(item, depth - 1) for item in list(value)[:ITEMS_SHOWN_MAX]]
            return [*shown, f"… {len(value) - ITEMS_SHOWN_MAX} more"] if len(value) > ITEMS_SHOWN_MAX else shown
        case _:
            return str(value)
