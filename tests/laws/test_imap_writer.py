"""What is written can be read: strings, names, sets, flags, replies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.events import SYSTEM_FLAGS
from cluster.domain.refusal import Reason, Refusal
from protocols.imap import utf7, writer
from protocols.imap.errors import WORDS, refused
from protocols.imap.grammar import Cursor
from protocols.imap.model import Reply

uids = st.lists(st.integers(1, 60), max_size=40)
texts = st.text(st.characters(codec="utf-8"), max_size=40)


@given(st.binary(max_size=40), st.booleans())
def test_a_string_is_read_back(value: bytes, utf8: bool) -> None:
    at = Cursor(writer.string(value, utf8))
    assert at.string() == value and at.ended


@given(st.binary(max_size=20).filter(lambda value: b"\0" not in value))  # RFC 9051 §9: CHAR8 is never NUL
def test_an_astring_is_read_back(value: bytes) -> None:
    at = Cursor(writer.astring(value))
    assert at.astring() == value and at.ended


def test_long_strings_are_literals() -> None:
    assert writer.string(b"x" * 2000).startswith(b"{2000}\r\n")


@given(texts, st.booleans())
def test_a_name_is_read_back(name: str, utf8: bool) -> None:
    if "\0" in name and utf8:
        return  # no name of a mailbox
    at = Cursor(writer.mailbox(name, utf8), utf8)
    assert at.mailbox() == name


@given(texts)
def test_modified_utf7_is_printable_and_decodes(name: str) -> None:
    encoded = utf7.encode(name)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert utf7.decode(encoded) == name


@pytest.mark.parametrize(
    ("encoded", "name"),
    [(b"~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"), (b"R&-D", "R&D"), (b"&AOk-t&AOk-", "été")],
)
def test_the_rfcs_own_names(encoded: bytes, name: str) -> None:
    """RFC 3501 §5.1.3."""
    assert utf7.decode(encoded) == name and utf7.encode(name) == encoded


@given(st.binary(max_size=20), st.booleans())
def test_any_bytes_are_a_name_or_refused(data: bytes, utf8: bool) -> None:
    try:
        utf7.decode(data, utf8)
    except utf7.NameUndecodable:
        pass


@given(uids)
def test_sets_are_read_back(values: list[int]) -> None:
    found = sorted(set(values))
    if found:
        assert list(ranges.expand(Cursor(writer.numbers(found).encode()).known_uids())) == found
        assert writer.ranges(ranges.compress(values)) == writer.numbers(found)


@given(uids)
def test_an_ordered_set_keeps_its_order(values: list[int]) -> None:
    text = writer.ordered(values)
    out: list[int] = []
    for piece in text.split(",") if text else []:
        first, _, last = piece.partition(":")
        out.extend(range(int(first), int(last or first) + 1))
    assert out == values


@given(st.sets(st.sampled_from(sorted(SYSTEM_FLAGS))), st.sets(st.sampled_from(("$Junk", "work", "x.y"))))
def test_flags_are_read_back(names: set[str], keywords: set[str]) -> None:
    bits = sum(SYSTEM_FLAGS[name] for name in names)
    written = writer.flags(bits, sorted(keywords))
    assert Cursor(f"({written})".encode()).flag_list() == (bits, tuple(sorted(keywords)))


@given(st.text(max_size=30))
def test_a_reply_is_one_line_of_ascii(text: str) -> None:
    line = writer.tagged("a1", Reply("NO", text, "LIMIT"))
    assert line.startswith(b"a1 NO [LIMIT] ") and line.endswith(b"\r\n") and line.count(b"\n") == 1 and line.isascii()


def test_every_refusal_has_its_words() -> None:
    assert set(WORDS) == set(Reason)
    for reason in Reason:
        assert refused(Refusal(reason)).state == "NO"
    assert refused(Refusal(Reason.NO_SUCH_MAILBOX), target=True).code == "TRYCREATE"
    assert refused(Refusal(Reason.NO_SUCH_MAILBOX)).code == "NONEXISTENT"
    assert "safe in the log" in refused(Refusal(Reason.NOT_SHOWN_YET, "something else")).text
