"""What a message is made of, as a fact: named by hashes, described once, never parsed again."""

import msgspec


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """A run of the message's bytes that is a blob: SHA-256 of the clear bytes, and how many."""

    hash: bytes
    size: int


class Content(msgspec.Struct, frozen=True, omit_defaults=True):
    """A whole message. Its bytes are its segments, one after another.

    `hash`: SHA-256 of the whole (EMAILID). `description`: `cluster.formats.mime.Description` in MessagePack, so that
    projecting needs neither the blob nor a decode. `sent`: the Date header, unix seconds, or None.
    """

    hash: bytes
    size: int
    segments: tuple[Segment, ...]
    description: bytes
    sent: int | None = None
