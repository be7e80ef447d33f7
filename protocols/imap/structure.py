"""ENVELOPE and BODYSTRUCTURE (RFC 9051 §7.5.2) from a message's description."""

from collections.abc import Sequence

from cluster.formats.mime import Address, Envelope, Part
from protocols.imap.writer import literal, nstring, quoted, string


def envelope(value: Envelope, utf8: bool = False) -> bytes:
    # RFC 9051 §7.5.2: Sender and Reply-To are From where the header lacks them
    from_ = _addresses(value.from_, utf8)
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        nstring(value.date, utf8),
        nstring(value.subject, utf8),
        from_,
        _addresses(value.sender, utf8) if value.sender else from_,
        _addresses(value.reply_to, utf8) if value.reply_to else from_,
        _addresses(value.to, utf8),
        _addresses(value.cc, utf8),
        _addresses(value.bcc, utf8),
        nstring(value.in_reply_to, utf8),
        nstring(value.message_id, utf8),
    )


def _addresses(found: Sequence[Address], utf8: bool) -> bytes:
    if not found:
        return b"NIL"
    return b"(" + b"".join([_address(one, utf8) for one in found]) + b")"


def _address(one: Address, utf8: bool) -> bytes:
    # RFC 9051 §7.5.2: (name adl mailbox host)
    return b"(%b %b %b %b)" % (
        nstring(one.name, utf8),
        nstring(one.adl, utf8),
        nstring(one.mailbox, utf8),
        nstring(one.host, utf8),
    )


def structure(part: Part, extended: bool, utf8: bool = False) -> bytes:
    """`extended`: BODYSTRUCTURE; without: BODY."""
    if part.children:
        words = [b"".join([structure(child, extended, utf8) for child in part.children]), _word(part.subtype)]
        if extended:
            # RFC 9051 §9: body-ext-mpart
            words += [_params(part.params, utf8), *_tail(part, utf8)]
        return b"(" + b" ".join(words) + b")"
    words = [
        _word(part.type),
        _word(part.subtype),
        _params(part.params, utf8),
        nstring(part.content_id, utf8),
        nstring(part.description, utf8),
        _word(part.encoding or "7bit"),
        b"%d" % part.size,
    ]
    # RFC 3501 §9 knows only RFC822 here; MESSAGE/GLOBAL came with RFC 9051 and RFC 6532
    if part.message is not None and part.envelope is not None and (part.subtype == "rfc822" or utf8):
        words += [envelope(part.envelope, utf8), structure(part.message, extended, utf8), b"%d" % part.lines]
    elif part.type == "text":
        words.append(b"%d" % part.lines)
    if extended:
        # RFC 9051 §9: body-ext-1part
        words += [nstring(part.md5, utf8), *_tail(part, utf8)]
    return b"(" + b" ".join(words) + b")"


def _tail(part: Part, utf8: bool) -> list[bytes]:
    """Disposition, language, location."""
    if part.disposition is None:
        disposition = b"NIL"
    else:
        disposition = b"(%b %b)" % (_word(part.disposition), _params(part.disposition_params, utf8))
    if not part.language:
        language = b"NIL"
    elif len(part.language) == 1:
        language = string(part.language[0], utf8)
    else:
        language = b"(" + b" ".join([string(one, utf8) for one in part.language]) + b")"
    return [disposition, language, nstring(part.location, utf8)]


def _params(params: Sequence[tuple[str, bytes]], utf8: bool) -> bytes:
    if not params:
        return b"NIL"
    words = [string(name.encode(), utf8) + b" " + string(value, utf8) for name, value in params]
    return b"(" + b" ".join(words) + b")"


def _word(value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    return quoted(data) if data.isascii() else literal(data)
