"""No bytes make the reader of messages raise, and its ranges always give the message back."""

from __future__ import annotations

import codecs
import encodings.aliases
import mmap

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cluster.formats import mime

MIB = 1024 * 1024

# Bytes that look like mail: pieces of syntax put together at random reach deeper than bytes that are random throughout.
_PIECES = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"<", b">", b"@", b"(", b")", b"[", b"]", b"\\", b'"', b"="]
    + [b"--", b"--b", b"--b--", b"\r\n\r\n", b"\n--b\n", b"\xff", b"=?utf-8?q?", b"?=", b"=?x?b?====?=", b"*0*=", b"''"]
    + [b"%", b"<!--", b"<style>", b"&#"]
    + [
        b"Content-Type: ", b"multipart/mixed; boundary=b\r\n", b"message/rfc822\r\n\r\n", b"text/html; charset=utf-7\r\n",
        b"Content-Transfer-Encoding: base64\r\n", b"Content-Transfer-Encoding: quoted-printable\r\n", b"From: ", b"To: ",
        b"Date: ", b"1 Jan 99999 00:00:00 +9999", b"Content-Disposition: attachment; filename*0*=utf-8''%e4\r\n",
        b"Subject: Re: [x] (fwd)\r\n", b"References: <a@b> <", b"Message-ID: <x>\r\n", b"Content-Language: de,\xff\r\n",
    ]
)  # fmt: skip
messages = st.one_of(st.binary(max_size=400), st.lists(_PIECES, max_size=60).map(b"".join))


@settings(max_examples=500, deadline=None)
@given(messages)
@example(b"")
@example(b"\n")
@example(b"\r")
def test_any_bytes_are_described(data: bytes) -> None:
    described_well(data)


def described_well(data: bytes) -> mime.Description:
    """Describes a message, and looks at everything that is read out of it."""
    description = mime.describe(data)
    structure = description.structure
    assert (structure.header_start, structure.end, description.size) == (0, len(data), len(data))
    assert description.header_bytes == structure.body_start
    inside(structure)
    encoded = msgspec.msgpack.encode(description)
    assert msgspec.msgpack.decode(encoded, type=mime.Description) == description
    assert len(description.preview) <= mime.PREVIEW_CHARS_MAX
    kinds: tuple[mime.SectionKind, ...] = ("", "HEADER", "TEXT")
    for kind in kinds:
        assert mime.section(structure, (), kind) is not None
    header = data[: structure.body_start]
    for text in (
        mime.search_text(data, structure, 1000),
        mime.header_value(header, "subject") or "",
        *(mime.filename(part) or "" for part in mime.parts(structure)),
        *(mime.addr_spec(address) for address in description.envelope.to),
    ):
        text.encode("utf-8")
        assert "\0" not in text
    for part in mime.parts(structure):
        mime.decode_part(data[part.body_start : part.end], part.encoding)
    return description


def test_a_mapped_file_will_do() -> None:
    """Large messages are spooled to disk: they are read through a map or a view, without a copy in memory."""
    data = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\nyou\r\n--b--\r\n"
    with mmap.mmap(-1, len(data)) as mapped:
        mapped[:] = data
        assert mime.describe(mapped) == mime.describe(data) == mime.describe(memoryview(data))
        assert mime.search_text(mapped, mime.describe(mapped).structure).endswith("hello\r\nyou")


def inside(part: mime.Part) -> None:
    """A part's pieces lie within it, in order and apart from each other; a multipart has parts (RFC 9051 §9, body-type-mpart)."""
    assert part.header_start <= part.body_start <= part.end
    assert (part.type == "multipart") == bool(part.children)
    assert (part.message is None) == (part.envelope is None)
    at = part.body_start
    for child in part.children:
        assert at <= child.header_start and child.end <= part.end
        at = child.end
        inside(child)
    if part.message is not None:
        assert (part.message.header_start, part.message.end) == (part.body_start, part.end)
        inside(part.message)


@settings(max_examples=300, deadline=None)
@given(messages)
def test_header_fields_divide_a_header(data: bytes) -> None:
    """HEADER.FIELDS and HEADER.FIELDS.NOT of the same names share out the fields; each ends in one blank line."""
    header = data[: mime.describe(data).header_bytes]
    names: list[str | bytes] = ["subject", "To", b"content-type"]
    chosen, others = mime.header_fields(header, names), mime.header_fields(header, names, exclude=True)
    assert chosen.endswith(b"\n") and others.endswith(b"\n")
    blank = b"\n" if header.endswith(b"\n") and not header.endswith(b"\r\n") else b"\r\n"
    whole = mime.header_fields(header, [], exclude=True)
    assert len(whole) <= len(header) + 4
    assert sorted(chosen[: -len(blank)] + others[: -len(blank)]) == sorted(whole[: -len(blank)])
    assert mime.header_fields(header, [*names, "x"], exclude=True) == mime.header_fields(others, ["x"], exclude=True)
    assert mime.header_fields(chosen, names) == chosen


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3 * mime.PART_BLOB_BYTES_MIN // 2), min_size=1, max_size=4))
def test_segments_cover_the_message_and_set_large_bodies_apart(sizes: list[int]) -> None:
    bodies = [b"%d" % number * size for number, size in enumerate(sizes)]
    parts = b"".join(b"--b\r\nContent-Type: image/png\r\n\r\n" + body + b"\r\n" for body in bodies)
    data = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + parts + b"--b--\r\n"
    ranges = mime.segments(mime.describe(data).structure, len(data))
    assert b"".join(data[start:end] for start, end in ranges) == data
    assert all(start < end for start, end in ranges)
    own = [body for body in bodies if len(body) > mime.PART_BLOB_BYTES_MIN]
    assert [data[start:end] for start, end in ranges][1::2] == own
    assert len(ranges) == 2 * len(own) + 1


@settings(max_examples=200, deadline=None)
@given(messages)
def test_segments_of_any_bytes(data: bytes) -> None:
    ranges = mime.segments(mime.describe(data).structure, len(data))
    assert b"".join(data[start:end] for start, end in ranges) == data


HOSTILE = {
    "no blank line": b"X: y\r\n" * 200_000,
    "one endless line": b"a" * MIB,
    "many addresses": b"From: " + b"a@b," * 100_000 + b"\r\n\r\n",
    "nested comments": b"From: " + b"(" * 100_000 + b"\r\n\r\n",
    "open quotes": b"From: " + b'"\\' * 60_000 + b"\r\nTo: " + b'a"' * 50_000 + b"\r\n\r\n",
    "blanks": b"From: a" + b" " * 100_000 + b"b\r\nSubject: " + b"[a] " * 20_000 + b"\r\n\r\n",
    "words": b"Subject: " + b"=?utf-8?q?" * 10_000 + b"\r\n\r\n",
    "many parameters": b"Content-Type: multipart/mixed" + b";a=b" * 30_000 + b"; boundary=b\r\n\r\n--b\r\n\r\n",
    "many parts": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\nSubject: x\r\n\r\n" * 100_000,
    "many delimiters": b"Content-Type: multipart/mixed; boundary=c\r\n\r\n" + b"--b\n" * 400_000,
    "deep messages": b"Content-Type: message/rfc822\r\n\r\n" * 5_000,
    "deep parts": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(2_000)
    ),
    "one boundary": b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" * 20_000,
    "digest": b"Content-Type: multipart/digest; boundary=b\r\n\r\n" + b"--b\r\n\r\nFrom: a,b,c,d\r\n\r\n" * 20_000,
    "many envelopes": b"Content-Type: multipart/digest; boundary=b\r\n\r\n"
    + (b"--b\r\n\r\nFrom: " + b"a," * 90 + b"\r\n\r\n") * 1_000,
    "one name thrice": b"From: " + b"a" * mime.HEADER_BYTES_MAX + b"\r\n\r\n",
    "open tags": b"Content-Type: text/html\r\n\r\n" + b"<style><!-- <a <" * 100_000,
    "blanks at ends": b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b" " * MIB,
    "references": b"References: " + b"<a@b>" * 20_000 + b"\r\nIn-Reply-To: " + b"<" * 100_000 + b"\r\n\r\n",
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_stay_small(name: str) -> None:
    """An event holds the description and must fit into a message of the log; time limits stop anything that is not linear."""
    data = HOSTILE[name]
    description = mime.describe(data)
    inside(description.structure)
    assert len(list(mime.parts(description.structure))) <= mime.PARTS_MAX
    assert len(msgspec.msgpack.encode(description)) < MIB
    mime.search_text(data, description.structure)


def test_the_limits_hold() -> None:
    part = b"--b\r\n\r\nx\r\n"
    many = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * (mime.PARTS_MAX + 10) + b"--b--\r\n"
    children = mime.describe(many).structure.children
    assert len(children) == mime.PARTS_MAX - 1
    assert children[-1].end == len(many)  # the last one has all the rest
    deep = mime.describe(b"Content-Type: message/rfc822\r\n\r\n" * (mime.DEPTH_MAX + 5)).structure
    chain = list(mime.parts(deep))
    assert len(chain) == mime.DEPTH_MAX + 1
    assert (chain[-1].media_type, chain[-1].end) == ("application/octet-stream", deep.end)
    addresses = mime.parse_addresses(b"g:" + b"a@b," * (mime.ADDRESSES_MAX + 10))
    assert len(addresses) <= mime.ADDRESSES_MAX and addresses[-1].host is None
    assert len(mime.parse_addresses(b"a@b," * (mime.ADDRESSES_MAX + 10))) <= mime.ADDRESSES_MAX


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(set(encodings.aliases.aliases.values())) + ["idna", "punycode"]))
def test_every_charset_gives_text_that_can_be_stored(data: bytes, charset: str) -> None:
    text = mime.decode_charset(data, charset)
    text.encode("utf-8")
    assert "\0" not in text


def test_all_of_a_charset() -> None:
    """Not left to chance: UTF-7 can smuggle in surrogates, and Python's own escapes are no charset."""
    assert mime.decode_charset(b"+2AA-x", "utf-7") in ("x", "\ufffdx")
    assert mime.decode_charset(b"\\ud800", "unicode_escape") == "\\ud800"
    assert codecs.lookup("unicode_escape")
