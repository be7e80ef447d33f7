"""What is fuzzed: each target takes any bytes and raises where something is wrong with what reads them.

A target says nothing about what the bytes mean. It plays them whole and cut, and looks at what came out by rules that hold
whatever went in.
"""

import io
import re
from collections.abc import Callable

import msgspec

from cluster import codec
from cluster.domain.mailbox import names as mailbox_names
from cluster.formats import mime, searched
from node.importing import many, mbox
from protocols import bearer, sasl, scram
from protocols.autoconfig import parser as autoconfig
from protocols.autoconfig.model import SyntaxRefused as AutoconfigRefused
from protocols.imap import structure, urls, utf7
from protocols.imap.grammar import Cursor
from protocols.imap.model import SyntaxRefused as ImapRefused
from protocols.smtp import paths
from protocols.smtp.model import SyntaxRefused as SmtpRefused
from tests.fuzz import sessions
from tests.laws import test_imap_parser, test_pop3_parser, test_smtp_parser
from tests.laws.test_mime_any_bytes import described_well
from tests.transcripts.play import cut

Target = Callable[[bytes], None]

MBOX_BYTES_MAX = 1000
_SMTP_MODES = ("command", "data", "chunk", "answer")


def imap(data: bytes) -> None:
    """Commands, whole, byte by byte and ragged."""
    names_utf8 = data.endswith(b"\n\n")
    whole = test_imap_parser.heard([data], names_utf8)
    assert test_imap_parser.heard(list(cut(data, "bytes")), names_utf8) == whole
    assert test_imap_parser.heard(list(cut(data, "ragged")), names_utf8) == whole


def pop3(data: bytes) -> None:
    whole = test_pop3_parser.heard([data])
    assert test_pop3_parser.heard(list(cut(data, "bytes"))) == whole
    assert test_pop3_parser.heard(list(cut(data, "ragged"))) == whole


def smtp(data: bytes) -> None:
    """The first byte says where in a conversation the rest stands."""
    mode, stream = _SMTP_MODES[data[0] % len(_SMTP_MODES)] if data else "command", data[1:]
    whole = test_smtp_parser.requests(stream, [], mode, 7)
    assert test_smtp_parser.requests(stream, list(range(len(stream))), mode, 7) == whole
    assert test_smtp_parser.requests(stream, list(range(0, len(stream), 3)), mode, 7) == whole


def smtp_arguments(data: bytes) -> None:
    for read in (paths.reverse_path, paths.forward_path):
        for word in (b"FROM:", b"TO:", b""):
            try:
                path, _ = read(word + data)
            except SmtpRefused:
                continue
            written = paths.written_address(path)
            if path.domain:
                assert paths.forward_path(b"TO:<" + written.encode() + b">")[0] == path
    for other in (paths.hello, paths.chunk):
        try:
            other(data)
        except SmtpRefused:
            continue


def message(data: bytes) -> None:
    """A message: described, shown to IMAP clients, made searchable."""
    description = described_well(data)
    for utf8 in (False, True):
        for extended in (False, True):
            shown = structure.structure(description.structure, extended, utf8)
            assert sessions.whole(b"* " + shown + b"\r\n", utf8) == 1
        assert sessions.whole(b"* " + structure.envelope(description.envelope, utf8) + b"\r\n", utf8) == 1
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(description), type=mime.Description) == description
    searched.searched(data, description)


def header_words(data: bytes) -> None:
    """Values of header fields, and the words in them."""
    text = mime.decode_words(data)
    text.encode("utf-8")
    base, _ = mime.read_subject(text)
    assert mime.read_subject(base)[0] == base
    for address in mime.parse_addresses(data):
        mime.addr_spec(address).encode("utf-8")
    for name in (b"utf-7", b"idna", data[:20]):
        mime.decode_charset(data, name.decode("latin-1")).encode("utf-8")
    if (found := mime.parse_date(data)) is not None:
        assert mime.parse_date(mime.format_date(*found)) == found
    if (found := mime.parse_internaldate(data)) is not None:
        assert mime.parse_internaldate(mime.format_internaldate(*found)) == found
    folded = text.casefold()
    listed = "\n" + "\n".join(searched.words(folded)) + "\n"
    for piece in needle.pieces if (needle := searched.needle(folded)) is not None else ():
        assert piece in listed, (folded, piece)


def names(data: bytes) -> None:
    """Mailbox names in modified UTF-7 and UTF-8, and URLs of messages."""
    for utf8 in (False, True):
        try:
            name = utf7.decode(data, utf8)
        except utf7.NameUndecodable:
            continue
        wanted = mailbox_names.wanted(name)
        assert mailbox_names.canonical(wanted) == wanted
        if mailbox_names.invalid(wanted) is None:
            wanted.encode("utf-8")
            assert not re.search(r"[\x00-\x1f\x7f]", wanted)
            assert utf7.decode(utf7.encode(wanted, utf8), utf8) == wanted
    text = data.decode("latin-1")
    if (url := urls.parse(text)) is not None:
        assert url.uid > 0
    assert urls.shown(text).isascii()


def signing_in(data: bytes) -> None:
    """SASL's base64, and the messages of SCRAM and of tokens."""
    try:
        sasl.decoded(data)
    except (sasl.Cancelled, sasl.Malformed):
        pass
    for plus in (False, True):
        try:
            scram.client_first(data, b"x" * 32, plus=plus)
        except scram.ScramRefused:
            continue
    for read in (bearer.oauthbearer, bearer.xoauth2):
        try:
            read(data).address.encode("utf-8")
        except bearer.BearerRefused:
            continue


def autodiscover(data: bytes) -> None:
    try:
        asked = autoconfig.outlook(data)
    except AutoconfigRefused:
        return
    assert "\0" not in autoconfig.domain_of(asked.address)


def moving_in(data: bytes) -> None:
    """An mbox, and a list of accounts."""
    try:
        for line, content, size in mbox.split(io.BytesIO(data), MBOX_BYTES_MAX):
            mbox.from_date(line)
            assert content is None or len(content) <= size
            mbox.unmarked(mbox.unquoted(content or b"", "rd"))
    except mbox.NotAnMbox:
        pass
    try:
        many.parsed(data.decode("utf-8", "replace"))
    except many.ListUnreadable:
        pass


def facts(data: bytes) -> None:
    """What comes out of the log."""
    try:
        codec.decode(data)
    except (codec.Undecodable, codec.Newer):
        pass


def imap_atoms(data: bytes) -> None:
    """Every reader of the cursor, at any bytes: each moves on or refuses, and none looks behind the end."""
    for reader in ("string", "astring", "nstring", "number", "sequence_set", "partial", "mailbox", "list_mailbox",
                   "flag_list", "flags", "date", "date_time", "known_uids", "text"):  # fmt: skip
        at = Cursor(data)
        try:
            getattr(at, reader)()
        except ImapRefused:
            continue
        assert 0 < at.at <= len(data), reader


TARGETS: dict[str, Target] = {
    "imap": imap,
    "imap_atoms": imap_atoms,
    "imap_session": sessions.imap_session,
    "pop3": pop3,
    "pop3_session": sessions.pop3_session,
    "smtp": smtp,
    "smtp_arguments": smtp_arguments,
    "smtp_session": sessions.smtp_session,
    "message": message,
    "header_words": header_words,
    "names": names,
    "signing_in": signing_in,
    "autodiscover": autodiscover,
    "moving_in": moving_in,
    "facts": facts,
}
