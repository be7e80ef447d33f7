"""mbox files (RFC 4155): one folder a file, read as a stream.

A message begins with a line `From ` (a date at its end, or nothing at all as Thunderbird writes it) at the start of the file
or after an empty line. What mail programs write of their own into the header (Status, X-Status, X-Keywords,
X-Mozilla-Status, X-UID and the like) is read as flags and not brought along: it is the file's and not the message's.
"""

import datetime
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from node.importing.lines import at_zone, dated, header_end, with_crlf
from node.importing.model import KEY_BYTES, Bad, Folder, Item, Known, SourceUnreadable

QUOTINGS = ("rd", "o", "none")  # mboxrd: one ">" less wherever some stand before "From "; mboxo: only of ">From "
LINE_BYTES_MAX = 1 << 20  # read at once; a longer line comes in pieces

_DAY = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH = rb"(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
# RFC 4155 default format: sender, then asctime in UTC; others write the zone before or after the year, or leave out seconds.
_FROM = re.compile(
    rb"From (?:.*?[ \t])?" + _DAY + rb"[ \t]+" + _MONTH + rb"[ \t]+(\d{1,2})[ \t]+(\d{1,2}):(\d\d)(?::(\d\d))?"
    rb"(?:[ \t]+([+-]\d{4}|[A-Z]{1,5}))?[ \t]+(\d{4})(?:[ \t]+([+-]\d{4}|[A-Z]{1,5}))?[ \t]*(?:remote from .*)?\r?\n?\Z"
)
_BARE_FROM = re.compile(rb"From [-]?[ \t]*\r?\n?\Z")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_OWN_FIELDS = (
    b"status", b"x-status", b"x-keywords", b"x-uid", b"x-imap", b"x-imapbase", b"x-mozilla-status",
    b"x-mozilla-status2", b"x-mozilla-keys", b"content-length",
)  # fmt: skip
_FOLDER_DATA = re.compile(rb"(?im)^subject:[ \t]*DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA[ \t]*\r?$")
_STATUS = {"R": "\\Seen"}
_X_STATUS = {"A": "\\Answered", "F": "\\Flagged", "D": "\\Deleted", "T": "\\Draft"}
_MOZILLA = {0x0001: "\\Seen", 0x0002: "\\Answered", 0x0004: "\\Flagged"}
_MOZILLA_EXPUNGED, _MOZILLA_FORWARDED = 0x0008, 0x1000


class Marks(NamedTuple):
    """What the file says of a message. `gone`: deleted, and only not yet removed from the file."""

    flags: tuple[str, ...]
    keywords: tuple[str, ...]
    gone: bool


class MboxSource:
    """`files`: each a folder named as `into`, or as the file without its ending."""

    def __init__(self, files: tuple[Path, ...], into: str, limit_bytes: int, quoting: str = "rd") -> None:
        self.name = "mbox"
        self._files = files
        self._into = into
        self._limit = limit_bytes
        self._quoting = quoting

    def folders(self) -> list[Folder]:
        found = []
        for file in self._files:
            if not file.is_file():
                raise SourceUnreadable(f"{file} is no file")
            name = self._into or file.name.removesuffix(".mbox") or file.name
            found.append(Folder(tuple(name.split("/")), str(file), str(file)))
        return found

    def count(self, folder: Folder) -> int:
        return sum(1 for _ in self._raw(folder.handle, 0))

    def messages(self, folder: Folder, known: Known) -> Iterator[Item | Bad]:
        equal: Counter[bytes] = Counter()
        changed = os.stat(folder.handle).st_mtime
        for number, (line, data, size) in enumerate(self._raw(folder.handle, self._limit), 1):
            where = f"{folder.where}, message {number}"
            if data is None:
                yield Bad(where, f"it has {size} bytes, where {self._limit} is the most (limits.message_bytes_max)")
                continue
            content, marks = unmarked(unquoted(with_crlf(data), self._quoting))
            if marks.gone or (number == 1 and _FOLDER_DATA.search(content[: header_end(content)])):
                continue
            # Of equal ones the first is not the second: how many came before it belongs to its name.
            at, zone = from_date(line) or dated(content) or (int(changed), 0)
            whole = hashlib.sha256(content + b"%d" % at).digest()
            equal[whole] += 1
            key = hashlib.sha256(whole + equal[whole].to_bytes(8, "big")).digest()[:KEY_BYTES]
            if not known(key):
                yield Item(key, where, content, at, zone, marks.flags, marks.keywords)

    def close(self) -> None:
        pass

    def _raw(self, path: str, limit: int) -> Iterator[tuple[bytes, bytes | None, int]]:
        try:
            with open(path, "rb") as file:
                yield from split(file, limit)
        except NotAnMbox:
            raise SourceUnreadable(f"{path} is no mbox: it does not begin with a line `From `") from None
        except OSError as error:
            raise SourceUnreadable(f"{path} cannot be read: {error.strerror or error}") from None


class NotAnMbox(Exception):
    """It does not begin with a From line."""


def split(file: IO[bytes], limit: int) -> Iterator[tuple[bytes, bytes | None, int]]:
    """(From line, message, bytes of it) for each; the message is None where it is larger than `limit`. Raises NotAnMbox,
    OSError."""
    line, started, size, pieces = b"", False, 0, [b""]
    blank, fresh = True, True  # was the line before empty; does a line begin here
    while piece := file.readline(LINE_BYTES_MAX):
        if fresh and blank and is_from(piece):
            if started:
                yield line, _joined(pieces, size, limit), size
            line, started, size, pieces = piece, True, 0, []
            blank = False
            continue
        if not started:
            if piece.strip():
                raise NotAnMbox
            continue
        blank = fresh and piece in (b"\n", b"\r\n")
        fresh = piece.endswith(b"\n")
        size += len(piece)
        if size <= limit:
            pieces.append(piece)
        else:
            pieces.clear()
    if started:
        yield line, _joined(pieces, size, limit), size


def _joined(pieces: list[bytes], size: int, limit: int) -> bytes | None:
    """Without the empty line that parts it from the next."""
    if size > limit:
        return None
    data = b"".join(pieces)
    for end in (b"\n\r\n", b"\n\n"):
        if data.endswith(end):
            return data[: len(data) - len(end) + 1]
    return data


def is_from(line: bytes) -> bool:
    return line.startswith(b"From ") and (_BARE_FROM.match(line) or _FROM.match(line)) is not None


def from_date(line: bytes) -> tuple[int, int] | None:
    """Unix seconds and zone in minutes. A zone by name is taken as UTC, as is none (RFC 4155 §A)."""
    found = _FROM.match(line)
    if found is None:
        return None
    month, day, hour, minute, second, before, year, after = found.groups()
    zone = before or after or b"+0000"
    minutes = 0
    if zone[:1] in b"+-":
        minutes = (int(zone[1:3]) * 60 + int(zone[3:5])) * (-1 if zone[:1] == b"-" else 1)
    try:
        tz = datetime.timezone(datetime.timedelta(minutes=minutes))
        number = _MONTHS.index(month) + 1
        moment = datetime.datetime(
            int(year), number, int(day), int(hour), int(minute), min(59, int(second or 0)), tzinfo=tz
        )
    except ValueError:
        return None
    return at_zone(moment)


def unquoted(content: bytes, quoting: str) -> bytes:
    if quoting == "rd":
        return re.sub(rb"(?m)^>(>*From )", rb"\1", content)
    return re.sub(rb"(?m)^>From ", b"From ", content) if quoting == "o" else content


def unmarked(content: bytes) -> tuple[bytes, Marks]:
    """The message without what the file's keepers wrote into its header, and what they said there. `content` has CRLF."""
    end = header_end(content)
    head = content[:end]
    if not any(
        name in head.lower()
        for name in (b"status:", b"x-keywords:", b"x-uid:", b"x-imap", b"x-mozilla", b"content-length:")
    ):
        return content, Marks((), (), False)
    kept: list[bytes] = []
    said: dict[bytes, str] = {}
    for field in re.split(rb"(?<=\r\n)(?![ \t])", head):
        name, colon, value = field.partition(b":")
        if colon and name.rstrip(b" \t").lower() in _OWN_FIELDS:
            said.setdefault(name.rstrip(b" \t").lower(), value.decode("utf-8", "replace").strip())
        else:
            kept.append(field)
    return b"".join(kept) + content[end:], _marks(said)


def _marks(said: dict[bytes, str]) -> Marks:
    flags = [_STATUS[sign] for sign in said.get(b"status", "") if sign in _STATUS]
    flags += [_X_STATUS[sign] for sign in said.get(b"x-status", "") if sign in _X_STATUS]
    keywords = said.get(b"x-keywords", "").split() + said.get(b"x-mozilla-keys", "").split()
    try:
        mozilla = int(said.get(b"x-mozilla-status", "0"), 16)
    except ValueError:
        mozilla = 0
    flags += [flag for bit, flag in _MOZILLA.items() if mozilla & bit]
    if mozilla & _MOZILLA_FORWARDED:
        keywords.append("$Forwarded")
    return Marks(tuple(dict.fromkeys(flags)), tuple(dict.fromkeys(keywords)), bool(mozilla & _MOZILLA_EXPUNGED))
