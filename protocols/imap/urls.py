"""IMAP URLs (RFC 5092) as CATENATE has them (RFC 4469 §3): an absolute path to a message of one's own, or to a part of it."""

import re
from urllib.parse import unquote_to_bytes

import msgspec

from protocols.imap.fetch_grammar import section_of
from protocols.imap.grammar import NUMBER64_MAX
from protocols.imap.model import Section, SyntaxRefused

# RFC 5092 §11: enc-mailbox [;UIDVALIDITY] "/" ;UID ["/" ;SECTION] ["/" ;PARTIAL]
_PATH = re.compile(
    r"/(?!/)([^;?#]+?)(?:;UIDVALIDITY=([1-9]\d{0,9}))?/;UID=([1-9]\d{0,9})"
    r"(?:/;SECTION=([^;?#]+?))?(?:/;PARTIAL=(\d{1,18})(?:\.([1-9]\d{0,17}))?)?",
    re.IGNORECASE,
)
_UNSAYABLE = re.compile(r'[^\x21-\x7e]|[\]"\\]')


class MessageUrl(msgspec.Struct, frozen=True):
    """`uidvalidity` 0: any. `partial`: (first byte, how many)."""

    mailbox: str
    uidvalidity: int
    uid: int
    section: Section = Section()
    partial: tuple[int, int] | None = None


def parse(url: str) -> MessageUrl | None:
    """None: no URL of a message here."""
    found = _PATH.fullmatch(url)
    if found is None:
        return None
    try:
        mailbox = unquote_to_bytes(found[1]).decode("utf-8")  # RFC 5092 §3: UTF-8, and no modified UTF-7
        section = section_of(unquote_to_bytes(found[4])) if found[4] else Section()
    except (UnicodeDecodeError, SyntaxRefused):
        return None
    partial = (int(found[5]), int(found[6] or NUMBER64_MAX)) if found[5] else None
    return MessageUrl(mailbox, int(found[2] or 0), int(found[3]), section, partial)


def shown(url: str) -> str:
    """For a response code (RFC 4469 §5 url-resp-text)."""
    return _UNSAYABLE.sub(lambda sign: f"%{ord(sign[0]):02X}", url)
