"""Which messages are one and the same to who sent them: by Message-ID (RFC 5322 §3.6.4), whatever was added on the way."""

from collections.abc import Iterable

import msgspec

from cluster.domain.mailbox.content import Content
from cluster.formats import mime

LOOKED_AT_MAX = 1000  # of a mailbox's newest messages

_description = msgspec.msgpack.Decoder(mime.Description)


def message_id(description: bytes) -> str:
    """Without brackets; empty = it has none."""
    try:
        return _description.decode(description).message_id or ""
    except msgspec.MsgspecError:
        return ""


def message_ids(contents: Iterable[Content]) -> frozenset[str]:
    return frozenset(found for content in contents if (found := message_id(content.description)))
