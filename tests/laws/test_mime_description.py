"""What is said of a message as a whole, and its text: the envelope, previews, attachments, words for SEARCH."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.formats import mime
from cluster.formats.mime import Address


def crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


# The example of RFC 3501 §7.4.2 and RFC 9051 §8, as a message.
EXAMPLE = crlf("""Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)
From: Terry Gray <gray@cac.washington.example>
Subject: IMAP4rev2 WG mtg summary and minutes
To: imap@cac.washington.example
cc: minutes@CNRI.Reston.example, John Klensin <KLENSIN@jck.example>
Message-Id: <B27397-0100000@cac.washington.example>
MIME-Version: 1.0
Content-Type: TEXT/PLAIN; CHARSET=US-ASCII

Minutes:
  one
""")


def test_the_envelope_of_the_standards_example() -> None:
    described = mime.describe(EXAMPLE)
    gray = (Address(b"Terry Gray", None, b"gray", b"cac.washington.example"),)
    assert described.envelope == mime.Envelope(
        date=b"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)",
        subject=b"IMAP4rev2 WG mtg summary and minutes",
        from_=gray,
        sender=gray,  # RFC 9051 §7.5.2: as From where absent
        reply_to=gray,
        to=(Address(None, None, b"imap", b"cac.washington.example"),),
        cc=(
            Address(None, None, b"minutes", b"CNRI.Reston.example"),
            Address(b"John Klensin", None, b"KLENSIN", b"jck.example"),
        ),
        message_id=b"<B27397-0100000@cac.washington.example>",
    )
    structure = described.structure
    assert (structure.media_type, structure.params, structure.lines) == ("text/plain", (("charset", b"US-ASCII"),), 2)
    assert described.header_bytes + structure.size == described.size == len(EXAMPLE)
    assert (described.sent, described.sent_zone) == (837595405, -420)
    assert (described.message_id, described.references) == ("B27397-0100000@cac.washington.example", ())
    assert (described.preview, described.has_attachment) == ("Minutes: one", False)


def test_an_envelope_keeps_raw_words_unfolded() -> None:
    raw = b"Subject: =?utf-8?q?J=C3=BC?=\r\n\tcaf\xe9 \0x\r\nSender: s@x.example\r\nReply-To: \r\nFrom: f@x.example\r\n\r\n"
    envelope = mime.describe(raw).envelope
    assert envelope.subject == b"=?utf-8?q?J=C3=BC?=\tcaf\xe9 x"
    assert envelope.sender == (Address(None, None, b"s", b"x.example"),)
    assert envelope.reply_to == envelope.from_  # empty counts as absent
    assert (envelope.date, envelope.in_reply_to, envelope.message_id) == (None, None, None)


def test_repeated_fields() -> None:
    """RFC 5322 §3.6 allows one of each: the first is taken, but no recipient is left out."""
    envelope = mime.describe(b"Subject: 1\nSubject: 2\nTo: a@x\nTo: b@x\n\n").envelope
    assert (envelope.subject, [address.mailbox for address in envelope.to]) == (b"1", [b"a", b"b"])


# RFC 9051 §6.4.5.1: the example of part numbers
NUMBERED = crlf("""Subject: whole
Content-Type: multipart/mixed; boundary=a

--a
Content-Type: text/plain

1
--a
Content-Type: application/octet-stream

2
--a
Content-Type: message/rfc822

Subject: three
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain

3.1
--b
Content-Type: application/octet-stream

3.2
--b--

--a
Content-Type: multipart/mixed; boundary=c

--c
Content-Type: image/gif

4.1
--c
Content-Type: message/rfc822

Subject: four two
Content-Type: multipart/mixed; boundary=d

--d
Content-Type: text/plain

4.2.1
--d
Content-Type: multipart/alternative; boundary=e

--e
Content-Type: text/plain

4.2.2.1
--e
Content-Type: text/richtext

4.2.2.2
--e--
--d--
--c--
--a--
""")


def cut(data: bytes, path: tuple[int, ...], kind: mime.SectionKind = "") -> bytes | None:
    found = mime.section(mime.describe(data).structure, path, kind)
    return None if found is None else data[found[0] : found[1]]


@pytest.mark.parametrize(
    "path",
    [(1,), (2,), (3, 1), (3, 2), (4, 1), (4, 2, 1), (4, 2, 2, 1), (4, 2, 2, 2)],
    ids=lambda p: ".".join(map(str, p)),
)
def test_part_numbers(path: tuple[int, ...]) -> None:
    assert cut(NUMBERED, path) == ".".join(map(str, path)).encode()
    assert cut(NUMBERED, (*path, 1)) is None
    assert cut(NUMBERED, path, "HEADER") is None


def test_headers_of_parts() -> None:
    assert cut(NUMBERED, (), "HEADER") == b"Subject: whole\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\n"
    assert cut(NUMBERED, (3,), "HEADER") == b"Subject: three\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    assert cut(NUMBERED, (4, 2), "MIME") == b"Content-Type: message/rfc822\r\n\r\n"
    assert cut(NUMBERED, (4, 1), "MIME") == b"Content-Type: image/gif\r\n\r\n"
    text = cut(NUMBERED, (3,), "TEXT")
    assert text is not None and text.startswith(b"--b\r\n") and text.endswith(b"--b--\r\n")
    assert cut(NUMBERED, (3,)) == (cut(NUMBERED, (3,), "HEADER") or b"") + text
    assert cut(NUMBERED, (), "MIME") is None
    assert cut(NUMBERED, (5,)) is None
    assert cut(EXAMPLE, (1,)) == cut(EXAMPLE, (), "TEXT") == b"Minutes:\r\n  one\r\n"


def test_header_fields() -> None:
    header = b"From: a\r\nSubject: s\r\n folded\r\nBCC : b\r\nX: y\r\n\r\n"
    assert mime.header_fields(header, ["subject", "bcc"]) == b"Subject: s\r\n folded\r\nBCC : b\r\n\r\n"
    assert mime.header_fields(header, [b"BCC"], exclude=True) == b"From: a\r\nSubject: s\r\n folded\r\nX: y\r\n\r\n"
    assert mime.header_fields(header, ["none"]) == b"\r\n"
    assert mime.header_fields(b"A: b\n\n", ["a"]) == b"A: b\n\n"
    assert mime.header_fields(b"A: b", ["a"]) == b"A: b\r\n\r\n"


def multipart(*parts: str, subtype: str = "mixed") -> bytes:
    body = "".join(f"--b\n{part}\n" for part in parts)
    return crlf(f"Content-Type: multipart/{subtype}; boundary=b\n\n{body}--b--\n")


ATTACHMENTS = [
    (multipart("\nhello", "Content-Type: application/pdf\n\nx"), True),
    (multipart("\nhello", "Content-Type: text/x-diff\nContent-Disposition: attachment; filename=a\n\nx"), True),
    (multipart("\nhello", "Content-Type: text/x-diff; name=a.diff\n\nx"), True),
    (multipart("\nhello", "Content-Type: text/plain\nContent-Disposition: inline; filename=a\n\nx"), False),
    (multipart("\nhello", "Content-Type: message/rfc822\n\nSubject: x\n\nx"), True),
    (multipart("\nhello", "Content-Type: image/png\nContent-ID: <a>\n\nx", subtype="related"), False),
    (multipart("\nhello", "Content-Type: image/png\nContent-ID: <a>\nContent-Disposition: attachment\n\nx"), True),
    (multipart("\nhello", "Content-Type: application/pgp-signature; name=s.asc\n\nx", subtype="signed"), False),
    (multipart("\nhello", "Content-Type: text/html\n\n<p>hello", subtype="alternative"), False),
    (b"Content-Type: application/pdf\r\n\r\nx", True),
    (b"\r\nx", False),
]


@pytest.mark.parametrize(("data", "expected"), ATTACHMENTS)
def test_attachments(data: bytes, expected: bool) -> None:
    assert mime.describe(data).has_attachment is expected


PREVIEWS = [
    (multipart("Content-Type: text/html\n\n<p>a<b>b</b></p>c", "\nplain"), "ab c"),
    (multipart("\n", "Content-Type: text/html\n\n<style>p{}</style>x &amp; y<!-- no -->"), "x & y"),
    (multipart("Content-Disposition: attachment\n\nnot this", "\nbut  this\n\n"), "but this"),
    (
        multipart(
            "Content-Transfer-Encoding: quoted-printable\nContent-Type: text/plain; charset=utf-8\n\nJ=C3=BC=\nrg"
        ),
        "Jürg",
    ),
    (b"Content-Type: text/plain; charset=koi8-r\nContent-Transfer-Encoding: base64\n\n8NLJ18XU", "Привет"),
    (b"Content-Type: image/png\n\nx", ""),
    (b"\n" + b"ab " * 1000, ("ab " * 1000)[:200].rstrip()),
    (b"Content-Type: text/html\n\n" + b"<i></i>" * 20_000 + b"late", ""),
]


@pytest.mark.parametrize(("data", "expected"), PREVIEWS)
def test_previews(data: bytes, expected: str) -> None:
    assert mime.describe(data).preview == expected


def test_threads() -> None:
    many = " ".join(f"<{n}@x>" for n in range(200))
    described = mime.describe(crlf(f'Message-ID: <"a"@x> (c)\nReferences: {many}\nIn-Reply-To: <199@x> <r@x>\n\n'))
    assert described.message_id == "a@x"  # RFC 5256 §2.2: quoting makes no difference
    assert len(described.references) == mime.REFERENCES_MAX
    assert (described.references[0], described.references[-2:]) == ("0@x", ("199@x", "r@x"))
    assert mime.message_ids(b"bare@x ") == ["bare@x"]
    assert mime.message_ids(b"your mail of <date> yesterday") == ["date"]
    assert mime.message_ids(b"no id") == []


def test_text_for_search() -> None:
    raw = multipart(
        "Content-Type: text/html; charset=utf-8\n\n<b>gr</b>üße<script>no</script> &lt;x&gt;",
        "Content-Type: message/rfc822\n\nSubject: =?utf-8?q?J=C3=BC?=\n\ninner text",
        "Content-Type: application/pdf\n\nnot text",
    )
    data = b"Subject: =?utf-8?q?=C3=A4?=\r\n b\r\nX: 1\r\nX: 2\r\n" + raw
    structure = mime.describe(data).structure
    body, whole = mime.body_text(data, structure), mime.search_text(data, structure)
    assert "grüße" in body and "<x>" in body and "Subject: Jü" in body and "inner text" in body
    assert "no" not in body.replace("not", "") and "not text" not in body and "Subject: ä b" not in body
    assert "Subject: ä b" in whole and body in whole
    assert len(mime.search_text(data, structure, 20)) <= 22
    header = data[: structure.body_start]
    assert mime.header_value(header, "SUBJECT") == "ä b"
    assert mime.header_value(header, "x") == "1\n2"
    assert mime.header_value(header, "y") is None
    assert [part.media_type for part in mime.text_parts(structure)] == ["text/html", "text/plain"]
    assert (
        mime.part_text(b"J=FCrg", mime.Part(0, 0, 6, encoding="quoted-printable", params=(("charset", b"latin1"),)))
        == "Jürg"
    )


def test_encoded_messages() -> None:
    """RFC 2046 §5.2.1 forbids to encode an enclosed message; one that is cannot be looked into, one that only says so can."""
    inner = base64.encodebytes(b"Subject: x\r\n\r\nbody").decode()
    head = "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n"
    assert mime.describe(crlf(head + inner)).structure.media_type == "application/octet-stream"
    assert mime.describe(crlf(head + "Subject: x\n\nbody")).structure.message is not None


@given(st.binary(max_size=300))
def test_decode_what_was_encoded(data: bytes) -> None:
    assert mime.decode_part(base64.encodebytes(data), "BASE64") == data
    quoted = b"".join(b"=%02X" % byte + (b"=\r\n" if n % 20 == 19 else b"") for n, byte in enumerate(data))
    assert mime.decode_part(quoted, " quoted-printable") == data
    for same in ("7bit", "8bit", "binary", ""):
        assert mime.decode_part(data, same) == data
    assert mime.decode_part(data, "x-uuencode") is None


def test_decode_what_is_damaged() -> None:
    assert mime.decode_part(b"aGV sb\r\nG8", "base64") == b"hello"  # padding lost
    assert mime.decode_part(b"aGVsbG8=!", "base64") == b"hello"
    assert mime.decode_part(b"aGVsbG8hx", "base64") == b"hello!"
    assert mime.decode_part(b"a=20 \t\r\nb=\r\nc= \r\nd=ZZ=", "quoted-printable") == b"a \r\nbcd=ZZ"
