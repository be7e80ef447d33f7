"""Message text as it lies on disks, made into what IMAP keeps; and dates out of headers."""

import datetime
import re
from email.utils import parsedate_to_datetime

HEADER_BYTES_MAX = 256 * 1024  # that are searched for a date

_BARE_LF = re.compile(rb"(?<!\r)\n")
_ZONE_MINUTES_MAX = 1439
_SECONDS_MAX = 253_402_214_400  # 9999-12-31, with room for any zone


def with_crlf(data: bytes) -> bytes:
    """RFC 5322 §2.1: a line ends with CRLF. Files have LF; what has CRLF already stays as it is."""
    return _BARE_LF.sub(b"\r\n", data)


def header_end(data: bytes) -> int:
    """Where the header block ends, without its empty line; all of it where there is none. `data` has CRLF."""
    if data.startswith(b"\r\n"):
        return 0
    end = data.find(b"\r\n\r\n")
    return len(data) if end < 0 else end + 2


def dated(content: bytes) -> tuple[int, int] | None:
    """When it came, by its own header: the topmost Received (RFC 5321 §4.4), else Date. Unix seconds and zone."""
    head = content[: min(header_end(content), HEADER_BYTES_MAX)]
    for pattern in (rb"(?im)^received:((?:[^\r\n]|\r\n[ \t])*)", rb"(?im)^date:((?:[^\r\n]|\r\n[ \t])*)"):
        if found := re.search(pattern, head):
            text = found[1].rpartition(b";")[2].decode("latin-1")
            if (moment := parsed_date(text)) is not None:
                return moment
    return None


def parsed_date(text: str) -> tuple[int, int] | None:
    """RFC 5322 §3.3; without a zone it is taken as UTC."""
    try:
        moment = parsedate_to_datetime(text.strip())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return at_zone(moment)


def at_zone(moment: datetime.datetime) -> tuple[int, int] | None:
    """Unix seconds, of 1970 to 9999, and the zone in minutes. What was before there were unix seconds is 0."""
    offset = moment.utcoffset()
    zone = 0 if offset is None else int(offset.total_seconds() // 60)
    if not -_ZONE_MINUTES_MAX <= zone <= _ZONE_MINUTES_MAX:
        return None
    if offset is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    try:
        return max(0, min(int(moment.timestamp()), _SECONDS_MAX)), zone
    except (OverflowError, ValueError):
        return None
