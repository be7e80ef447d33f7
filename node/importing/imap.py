"""A remote account by IMAP (RFC 3501, 9051), read only: EXAMINE and BODY.PEEK, so that nothing changes there.

The library's `imaplib` speaks the wire; what a broken server may do to us is bounded here: a literal longer than a message
may be ends the connection, an answer that makes no sense loses its message and no other.
"""

import datetime
import hashlib
import imaplib
import re
import ssl
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from node.importing.lines import at_zone, dated, with_crlf
from node.importing.model import KEY_BYTES, Bad, Folder, Item, Known, SourceUnreadable
from protocols.imap import utf7
from storage.portions import portions

TIMEOUT_S = 120.0
LOGOUT_S_MAX = 5.0
LISTED_UIDS = 2_000  # asked at once
FETCHED_MESSAGES = 100
FETCHED_BYTES = 4 << 20
LITERAL_SPARE_BYTES = 1 << 20  # beyond a message: of names and the like
UIDS_MAX = 5_000_000

TLS = ("implicit", "starttls", "none")
SPECIAL_USES = ("\\Archive", "\\Drafts", "\\Junk", "\\Sent", "\\Trash")
_SYSTEM_FLAGS = {flag.lower(): flag for flag in ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft")}

_LIST = re.compile(rb'\((?P<attributes>[^)]*)\) (?P<separator>NIL|"(?:[^"\\]|\\.)") ?(?P<name>.*)\Z', re.S)
_UID = re.compile(rb"[ (]UID (\d{1,10})")
_SIZE = re.compile(rb"[ (]RFC822\.SIZE (\d{1,19})")
_FLAGS = re.compile(rb"[ (]FLAGS \(([^)]*)\)")
_INTERNAL = re.compile(rb'[ (]INTERNALDATE "([^"]*)"')

Answer = list[bytes | tuple[bytes, bytes]]


class Server(NamedTuple):
    """`tls`: implicit, starttls or none. `verify` False: any certificate is taken."""

    host: str
    port: int
    user: str
    password: str
    tls: str = "implicit"
    verify: bool = True


class Line(NamedTuple):
    """One message as the server lists it."""

    uid: int
    size: int
    flags: tuple[str, ...]
    keywords: tuple[str, ...]
    internal: tuple[int, int] | None


class ImapSource:
    def __init__(self, server: Server, limit_bytes: int) -> None:
        self.name = f"imap {server.user} {server.host}"
        self._server = server
        self._limit = limit_bytes
        self._imap: imaplib.IMAP4 | None = None
        self._asking = threading.Lock()

    def folders(self) -> list[Folder]:
        try:
            imap = self._signed_in()
            able = _capabilities(imap)
            listed = self._answers(*imap.list(*_list_arguments(able)), "LIST")
            own, foreign = _namespaces(imap, able)
            wanted = {name for _, _, name in map(_listed, self._answers(*imap.lsub('""', "*"), "LSUB")) if name}
        except (imaplib.IMAP4.error, OSError) as error:
            raise self._unreadable(error) from None
        found: dict[bytes, Folder] = {}
        for attributes, separator, name in map(_listed, listed):
            if not name or {"\\noselect", "\\nonexistent"} & attributes or name.startswith(foreign):
                continue
            text = _decoded(name.removeprefix(own))
            levels = tuple(text.split(separator)) if separator else (text,)
            if len(levels) == 1 and levels[0].upper() == "INBOX":
                levels = ("INBOX",)
            use = next((use for use in SPECIAL_USES if use.lower() in attributes), "")
            where = f"{self._server.host}, {_decoded(name)}"
            found.setdefault(
                name, Folder(levels, where, name.decode("latin-1"), use, name in wanted or levels == ("INBOX",))
            )
        return list(found.values())

    def count(self, folder: Folder) -> int:
        try:
            return self._opened(folder)[1]
        except (imaplib.IMAP4.error, OSError) as error:
            raise self._unreadable(error) from None

    def messages(self, folder: Folder, known: Known) -> Iterator[Item | Bad]:
        try:
            uidvalidity, _ = self._opened(folder)
            keys = {}
            for uid in self._uids():
                key = hashlib.sha256(f"{folder.handle}/{uidvalidity}/{uid}".encode()).digest()[:KEY_BYTES]
                if not known(key):
                    keys[uid] = key
            wanted = list(keys)
            for start in range(0, len(wanted), LISTED_UIDS):
                listed = self._lines(wanted[start : start + LISTED_UIDS])
                for lines in portions(listed, lambda line: line.size, FETCHED_BYTES, FETCHED_MESSAGES):
                    yield from self._fetched(folder, lines, keys)
        except (imaplib.IMAP4.error, OSError) as error:
            raise self._unreadable(error) from None

    def close(self) -> None:
        """Also while another thread waits for an answer: it hears then that the connection is gone."""
        imap, self._imap = self._imap, None
        if imap is None:
            return
        if not self._asking.acquire(blocking=False):
            imap.shutdown()
            return
        try:
            imap.sock.settimeout(LOGOUT_S_MAX)
            imap.logout()
        except (imaplib.IMAP4.error, OSError):
            imap.shutdown()
        finally:
            self._asking.release()

    # -----------------------------------------------------------------------------------------------------------------

    def _signed_in(self) -> imaplib.IMAP4:
        if self._imap is not None:
            return self._imap
        server = self._server
        context = ssl.create_default_context()
        if not server.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        imap: _Bounded
        if server.tls == "implicit":
            imap = _BoundedTls(server.host, server.port, ssl_context=context, timeout=TIMEOUT_S)
        else:
            imap = _Bounded(server.host, server.port, timeout=TIMEOUT_S)
        imap.literal_bytes_max = self._limit + LITERAL_SPARE_BYTES
        if server.tls == "starttls":
            imap.starttls(ssl_context=context)
        _sign_in(imap, server)
        self._imap = imap
        return imap

    def _opened(self, folder: Folder) -> tuple[str, int]:
        """UIDVALIDITY and how many messages."""
        imap = self._signed_in()
        status, data = imap.select(_quoted(folder.handle), readonly=True)
        if status != "OK":
            raise imaplib.IMAP4.error(f"EXAMINE {folder.where}: {_text(data)}")
        _, validity = imap.response("UIDVALIDITY")
        count = data[0] or b"0"
        return _text(validity) or "0", int(count) if count.isdigit() else 0

    def _uids(self) -> list[int]:
        data = self._asked("SEARCH", "ALL")
        uids = {int(word) for part in data if isinstance(part, bytes) for word in part.split() if word.isdigit()}
        if len(uids) > UIDS_MAX:
            raise imaplib.IMAP4.error(f"more than {UIDS_MAX} messages in one mailbox")
        return sorted(uids)

    def _lines(self, uids: Sequence[int]) -> list[Line]:
        """Those that the server tells of; of the others nothing is known but the UID, and they are asked for all the same."""
        found = {}
        for head, _ in self._fetch(uids, "(UID RFC822.SIZE FLAGS INTERNALDATE)"):
            if uid := _UID.search(head):
                found[int(uid[1])] = _line(int(uid[1]), head)
        return [found.get(uid) or Line(uid, 0, (), (), None) for uid in uids]

    def _fetched(self, folder: Folder, lines: Sequence[Line], keys: dict[int, bytes]) -> Iterator[Item | Bad]:
        small = [line for line in lines if line.size <= self._limit]
        contents: dict[int, bytes] = {}
        for head, content in self._fetch([line.uid for line in small], "(UID BODY.PEEK[])"):
            if content is not None and (uid := _UID.search(head)):
                contents[int(uid[1])] = content
        for line in lines:
            where = f"{folder.where}, UID {line.uid}"
            content = contents.get(line.uid)
            if line.size > self._limit:
                yield Bad(
                    where, f"it has {line.size} bytes, where {self._limit} is the most (limits.message_bytes_max)"
                )
            elif content is None:
                yield Bad(where, "the server lists it and does not give it")
            else:
                content = with_crlf(content)
                at, zone = line.internal or dated(content) or (0, 0)
                yield Item(keys[line.uid], where, content, at, zone, line.flags, line.keywords)

    def _fetch(self, uids: Sequence[int], what: str) -> Iterator[tuple[bytes, bytes | None]]:
        """For each answer all that is not the literal, and the literal."""
        if not uids:
            return
        data = self._asked("FETCH", _ranges(uids), what)
        head, literal = b"", None
        for part in data:
            if isinstance(part, tuple):
                if literal is not None:
                    yield head, literal
                head, literal = part[0], part[1]
            elif literal is not None:
                yield head + part, literal  # what stands behind the literal belongs to it
                head, literal = b"", None
            else:
                yield part, None
        if literal is not None:
            yield head, literal

    def _asked(self, word: str, *arguments: str) -> Answer:
        with self._asking:
            if self._imap is None:
                raise imaplib.IMAP4.abort("the connection is closed")
            return self._answers(*self._imap.uid(word, *arguments), word)

    def _answers(self, status: str, data: Sequence[object], word: str) -> Answer:
        if status != "OK":
            raise imaplib.IMAP4.error(f"{word}: {_text(data)}")
        return [part for part in data if isinstance(part, bytes | tuple)]

    def _unreadable(self, error: Exception) -> SourceUnreadable:
        """The connection is of no use any more: the next question makes a new one."""
        if self._imap is not None:
            self._imap.shutdown()
            self._imap = None
        words = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, ssl.SSLCertVerificationError):
            words += ". Name the file of an authority to trust in SSL_CERT_FILE, or say --no-verify"
        return SourceUnreadable(f"{self._server.user} at {self._server.host}: {words}")


class _Bounded(imaplib.IMAP4):
    literal_bytes_max = LITERAL_SPARE_BYTES

    def read(self, size: int) -> bytes:
        if size > self.literal_bytes_max:
            raise self.abort(f"the server sends a literal of {size} bytes, where {self.literal_bytes_max} is the most")
        return super().read(size)


class _BoundedTls(_Bounded, imaplib.IMAP4_SSL):
    pass


def _sign_in(imap: imaplib.IMAP4, server: Server) -> None:
    """AUTHENTICATE PLAIN (RFC 4616) where it is offered, as LOGIN's quoted strings are ASCII."""
    if "AUTH=PLAIN" in imap.capabilities:
        words = f"\0{server.user}\0{server.password}".encode()
        imap.authenticate("PLAIN", lambda _: words)
    elif (server.user + server.password).isascii():
        imap.login(server.user, server.password)
    else:
        raise imaplib.IMAP4.error("it takes only LOGIN, which can send no name or password beyond ASCII")


def _capabilities(imap: imaplib.IMAP4) -> frozenset[str]:
    """As they are once somebody has signed in: most servers say more then, and imaplib asks only before."""
    _, data = imap.capability()
    return frozenset(_text(data).upper().split())


def _list_arguments(able: frozenset[str]) -> tuple[str, str]:
    # RFC 6154 §2: told when asked for; without LIST-EXTENDED some tell unasked.
    special = {"LIST-EXTENDED", "SPECIAL-USE"} <= able
    return '""', "* RETURN (SPECIAL-USE)" if special else "*"


def _namespaces(imap: imaplib.IMAP4, able: frozenset[str]) -> tuple[bytes, tuple[bytes, ...]]:
    """RFC 2342: what stands before all of the person's own names (as `INBOX.` at some servers), which is not a part of them;
    and before those of others, which are not to be moved."""
    if "NAMESPACE" not in able:
        return b"", ()
    status, data = imap.namespace()
    if status != "OK" or not data or not isinstance(data[0], bytes):
        return b"", ()
    groups = _groups(data[0])
    own = groups[0][0] if groups and groups[0] else b""
    foreign = tuple(prefix for group in groups[1:3] for prefix in group if prefix and not own.startswith(prefix))
    return own, foreign


def _groups(line: bytes) -> list[list[bytes]]:
    """The prefixes in each of the three groups of a NAMESPACE answer."""
    groups: list[list[bytes]] = []
    depth, first = 0, False
    for found in re.finditer(rb'"((?:[^"\\]|\\.)*)"|[()]|NIL', line):
        sign = found[0]
        if sign == b"(":
            depth += 1
            if depth == 1:
                groups.append([])
            first = depth == 2
        elif sign == b")":
            depth -= 1
        elif sign == b"NIL" and depth == 0:
            groups.append([])
        elif sign != b"NIL" and depth == 2 and first:
            groups[-1].append(re.sub(rb"\\(.)", rb"\1", found[1]))
            first = False
    return groups


def _listed(part: bytes | tuple[bytes, bytes]) -> tuple[set[str], str, bytes]:
    """Attributes in lower case, separator, name; an empty name where the line makes no sense."""
    line, literal = (part[0], part[1]) if isinstance(part, tuple) else (part, None)
    found = _LIST.match(line)
    if found is None:
        return set(), "", b""
    attributes = {word.lower() for word in found["attributes"].decode("latin-1").split()}
    separator = "" if found["separator"] == b"NIL" else found["separator"][1:-1].decode("latin-1")[-1]
    if literal is not None:
        return attributes, separator, literal
    name = found["name"].strip()
    if name.startswith(b'"'):
        end = re.match(rb'"((?:[^"\\]|\\.)*)"', name)
        name = re.sub(rb"\\(.)", rb"\1", end[1]) if end else b""
    else:
        name = name.split(b" ")[0]
    return attributes, separator, name


def _decoded(name: bytes) -> str:
    try:
        return utf7.decode(name)
    except utf7.NameUndecodable:
        return name.decode("utf-8", "replace")


def _quoted(handle: str) -> str:
    """As it was listed. `imaplib` sends ASCII only; what a server lists beyond it cannot be asked for."""
    if not handle.isascii() or "\r" in handle or "\n" in handle:
        raise imaplib.IMAP4.error(f"a mailbox name that cannot be sent back: {handle!r}")
    return '"' + handle.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _line(uid: int, head: bytes) -> Line:
    size, flags, internal = _SIZE.search(head), _FLAGS.search(head), _INTERNAL.search(head)
    words = flags[1].decode("latin-1").split() if flags else []
    system = tuple(_SYSTEM_FLAGS[word.lower()] for word in words if word.lower() in _SYSTEM_FLAGS)
    keywords = tuple(word for word in words if not word.startswith("\\"))
    return Line(uid, int(size[1]) if size else 0, system, keywords, _internal(internal[1]) if internal else None)


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE = re.compile(rb" ?(\d{1,2})-([A-Za-z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)\Z")


def _internal(text: bytes) -> tuple[int, int] | None:
    """RFC 9051 §9, date-time."""
    found = _DATE.match(text)
    if found is None or found[2].decode().lower() not in _MONTHS:
        return None
    day, year, hour, minute, second = (int(found[n]) for n in (1, 3, 4, 5, 6))
    zone = (int(found[8]) * 60 + int(found[9])) * (-1 if found[7] == b"-" else 1)
    try:
        tz = datetime.timezone(datetime.timedelta(minutes=zone))
        month = _MONTHS.index(found[2].decode().lower()) + 1
        return at_zone(datetime.datetime(year, month, day, hour, minute, min(59, second), tzinfo=tz))
    except ValueError:
        return None


def _ranges(uids: Sequence[int]) -> str:
    """Ascending UIDs as a sequence-set."""
    parts: list[list[int]] = []
    for uid in uids:
        if parts and parts[-1][1] == uid - 1:
            parts[-1][1] = uid
        else:
            parts.append([uid, uid])
    return ",".join(str(first) if first == last else f"{first}:{last}" for first, last in parts)


def _text(data: Sequence[object]) -> str:
    return " ".join(part.decode("utf-8", "replace") for part in data if isinstance(part, bytes))
