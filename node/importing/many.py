"""Many imports from a CSV (RFC 4180): what each line says, and the source it means."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from node.importing.imap import TLS, ImapSource, Server
from node.importing.maildir import MaildirSource
from node.importing.mbox import MboxSource
from node.importing.model import Source

COLUMNS = ("address", "kind", "source", "user", "password", "port", "tls", "into")
NEEDED = ("address", "kind", "source")
KINDS = ("maildir", "mbox", "imap")
PORTS = {"implicit": 993, "starttls": 143, "none": 143}
ROWS_MAX = 100_000


class Row(NamedTuple):
    """One line. `source`: a path, or an IMAP server's name. `into`: the mailbox of an mbox file."""

    line: int
    address: str
    kind: str
    source: str
    user: str = ""
    password: str = ""
    port: str = ""
    tls: str = ""
    into: str = ""


class ListUnreadable(Exception):
    """The file is not what it should be. The text is one line for people."""


def parsed(text: str) -> list[Row]:
    """Every line, or the first that is wrong is complained of: nothing is begun with half a list. Raises ListUnreadable."""
    try:
        return list(_rows(text))
    except csv.Error as error:
        raise ListUnreadable(f"not a CSV: {error}") from None


def _rows(text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    header = [column.strip().lower() for column in next(reader, [])]
    wrong = [column for column in header if column not in COLUMNS] or [one for one in NEEDED if one not in header]
    if wrong or len(set(header)) < len(header):
        optional = ",".join(COLUMNS[len(NEEDED) :])
        look = ", ".join(wrong) or "its repeated names"
        raise ListUnreadable(
            f"the first line must name {','.join(NEEDED)}, and of {optional} what is used; look at {look}"
        )
    line, count = reader.line_num + 1, 0
    for cells in reader:
        if any(cell.strip() for cell in cells):
            count += 1
            if count > ROWS_MAX:
                raise ListUnreadable(f"more than {ROWS_MAX} lines: split the file")
            if len(cells) != len(header):
                raise ListUnreadable(f"line {line}: {len(cells)} columns where the first line names {len(header)}")
            named = {
                name: cell if name == "password" else cell.strip() for name, cell in zip(header, cells, strict=True)
            }
            yield _checked(Row(line, **named))
        line = reader.line_num + 1


def _checked(row: Row) -> Row:
    if row.kind not in KINDS:
        raise ListUnreadable(f"line {row.line}: kind must be one of {', '.join(KINDS)}, not {row.kind!r}")
    if not row.address or not row.source:
        raise ListUnreadable(f"line {row.line}: address and source may not be empty")
    if row.kind == "imap" and not (row.user and row.password):
        raise ListUnreadable(f"line {row.line}: an IMAP account needs user and password")
    if row.tls and row.tls not in TLS:
        raise ListUnreadable(f"line {row.line}: tls must be one of {', '.join(TLS)}, not {row.tls!r}")
    if row.port and not (row.port.isascii() and row.port.isdecimal() and 0 < int(row.port[:6]) < 65536):
        raise ListUnreadable(f"line {row.line}: {row.port!r} is no port")
    return row


def source_of(row: Row, limit_bytes: int, *, verify: bool, quoting: str = "rd") -> Source:
    match row.kind:
        case "maildir":
            return MaildirSource(Path(row.source), limit_bytes)
        case "mbox":
            return MboxSource((Path(row.source),), row.into, limit_bytes, quoting)
        case _:
            tls = row.tls or "implicit"
            port = int(row.port) if row.port else PORTS[tls]
            return ImapSource(Server(row.source, port, row.user, row.password, tls, verify), limit_bytes)
