"""Trace fields, loops, and what submission mends in a header. Pure: bytes in, bytes out."""

from typing import NamedTuple

from cluster.formats.mime.dates import format_date
from cluster.formats.mime.headers import header_end, header_fields, raw_fields

HEADER_BYTES_MAX = 1 << 20  # of a message that are looked at for its header


class Hop(NamedTuple):
    """What a Received field says. `peer`: an address, empty for a unix socket. `cipher` empty: no TLS. `recipient` is
    empty unless there is only one (RFC 5321 §7.6: nobody is to learn of another)."""

    hello: str
    peer: str
    host: str
    protocol: str
    id: int
    cipher: str
    recipient: str
    at: int


def protocol(lmtp: bool, extended: bool, secured: bool, signed_in: bool, smtputf8: bool) -> str:
    """The `with` of a Received field (RFC 3848, RFC 6531 §4.3)."""
    if lmtp:
        name = "UTF8LMTP" if smtputf8 else "LMTP"
    elif smtputf8:
        name = "UTF8SMTP"
    else:
        name = "ESMTP" if extended else "SMTP"
    if name != "SMTP":
        name += ("S" if secured else "") + ("A" if signed_in else "")
    return name


def received(hop: Hop) -> bytes:
    """RFC 5321 §4.4: Time-stamp-line."""
    peer = ""
    if hop.peer:
        peer = f" ([{'IPv6:' if ':' in hop.peer else ''}{hop.peer}])"
    lines = [f"Received: from {hop.hello}{peer}"]
    if hop.cipher:
        lines.append(f"(using {hop.cipher})")
    lines.append(f"by {hop.host} with {hop.protocol} id {hop.id:x}")
    if hop.recipient:
        lines.append(f"for <{hop.recipient}>")
    return ("\r\n\t".join(lines) + f";\r\n\t{format_date(hop.at)}\r\n").encode()


def return_path(sender: str) -> bytes:
    """RFC 5321 §4.4: inserted at final delivery, as the first line."""
    return f"Return-Path: <{sender}>\r\n".encode()


def hops(head: bytes) -> int:
    """How many Received fields the header has (RFC 5321 §6.3)."""
    block = head[: header_end(head, 0, len(head))].lower()
    return block.count(b"\nreceived:") + block.startswith(b"received:")


class Mended(NamedTuple):
    """`added` goes before the message's header. `header`: what replaces it, None where it can stay."""

    added: bytes
    header: bytes | None


def mended(head: bytes, at: int, message_id: str) -> Mended:
    """RFC 6409 §8.1–8.2: Date and Message-ID where they are missing; RFC 5322 §3.6.3: no Bcc goes out.

    `message_id` is without its angle brackets."""
    header = head[: header_end(head, 0, len(head))]
    names = {name for name, _ in raw_fields(header)}
    added = b""
    if b"date" not in names:
        added += f"Date: {format_date(at)}\r\n".encode()
    if b"message-id" not in names:
        added += f"Message-ID: <{message_id}>\r\n".encode()
    if b"bcc" not in names and b"resent-bcc" not in names:
        return Mended(added, None)
    return Mended(added, header_fields(header, ("bcc", "resent-bcc"), exclude=True))
