"""Trace fields, loops, and what submission mends in a header. Pure: bytes in, bytes out."""

from typing import NamedTuple

from cluster.formats.mime import format_date, header_fields, header_value

HEADER_BYTES_MAX = 1 << 20  # of a message that are looked at for its header
BLIND = ("Bcc", "Resent-Bcc")


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


def _header(head: bytes) -> bytes:
    """With its closing empty line. Lines end with CRLF only: nothing else is let in."""
    if head.startswith(b"\r\n"):
        return head[:2]
    end = head.find(b"\r\n\r\n")
    return head if end < 0 else head[: end + 4]


def hops(head: bytes) -> int:
    """How many Received fields the header has (RFC 5321 §6.3)."""
    block = _header(head).lower()
    return block.count(b"\nreceived:") + block.startswith(b"received:")


def blind(head: bytes) -> bytes:
    """The fields that `mended` takes out, each line with its end; empty = there are none."""
    return header_fields(_header(head), BLIND).removesuffix(b"\r\n")


class Mended(NamedTuple):
    """`added` goes before the message's header. `header`: what replaces it, None where it can stay."""

    added: bytes
    header: bytes | None


def mended(head: bytes, at: int, message_id: str) -> Mended:
    """RFC 6409 §8.1–8.2: Date and Message-ID where they are missing; RFC 5322 §3.6.3: no Bcc goes out.

    `message_id` is without its angle brackets."""
    header = _header(head)
    added = b""
    if header_value(header, "Date") is None:
        added += f"Date: {format_date(at)}\r\n".encode()
    if header_value(header, "Message-ID") is None:
        added += f"Message-ID: <{message_id}>\r\n".encode()
    if all(header_value(header, name) is None for name in BLIND):
        return Mended(added, None)
    return Mended(added, header_fields(header, BLIND, exclude=True))
