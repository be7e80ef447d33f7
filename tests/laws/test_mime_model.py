"""The walker against a slow, plain model of MIME (line by line, the standard library reading each header): over trees
made here, and over every message in Python's own test suite and in tests/corpus/mime. And against the standard parser.
"""

from __future__ import annotations

import email.encoders
import email.message
import email.policy
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes  # noqa: TID251 - the oracle of these tests
from email.message import Message
from email.mime.base import MIMEBase
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.formats import mime

Lines = list[bytes]


@dataclass
class Node:
    header: bytes
    body: bytes
    type: str
    children: list[Node] = field(default_factory=list)
    message: Node | None = None


def read(data: bytes, default: str = "text/plain") -> Node:
    """The node of a message, or of a part whose own end is known."""
    return _node(_lines(data), default)


def _lines(data: bytes) -> Lines:
    pieces = data.split(b"\n")
    return [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])


def _node(lines: Lines, default: str) -> Node:
    cut = next((i + 1 for i, line in enumerate(lines) if line in (b"\n", b"\r\n")), len(lines))
    header, body = lines[:cut], lines[cut:]
    parsed = _header(header)
    kind = parsed.get_content_type() if parsed["content-type"] is not None else default
    node = Node(b"".join(header), b"".join(body), kind)
    if kind.startswith("multipart/"):
        boundary = parsed.get_boundary()
        if boundary:
            inner = "message/rfc822" if kind == "multipart/digest" else "text/plain"
            node.children = _split(body, boundary.encode(), inner)
        if not node.children:
            node.type = "text/plain"
    elif kind in ("message/rfc822", "message/global"):
        node.message = read(node.body)
    return node


def _header(lines: Lines) -> Message:
    """Read by the library, without the lines at which it would stop: what is no field it takes for the body."""
    fields: Lines = []
    skipping = False
    for line in lines:
        if line[:1] not in (b" ", b"\t"):
            name = line.partition(b":")[0].rstrip(b" \t")
            skipping = b":" not in line or not name or any(byte <= 32 or byte >= 127 for byte in name)
            line = name + b":" + line.partition(b":")[2]
        if not skipping:
            fields.append(line)
    return message_from_bytes(b"".join(fields), policy=email.policy.compat32)


def _split(lines: Lines, boundary: bytes, default: str) -> list[Node]:
    parts: list[Node] = []
    current: Lines | None = None
    for line in lines:
        text = line.rstrip(b" \t\r\n")
        if text in (b"--" + boundary, b"--" + boundary + b"--"):
            if current is not None:
                parts.append(_part(current, default))
            if text == b"--" + boundary + b"--":
                return parts
            current = []
        elif current is not None:
            current.append(line)
    if current is not None:
        parts.append(_node(current, default))
    return parts


def _part(lines: Lines, default: str) -> Node:
    """A part before a delimiter: the last line break of its body belongs to that."""
    cut = next((i + 1 for i, line in enumerate(lines) if line in (b"\n", b"\r\n")), len(lines))
    if len(lines) > cut:
        lines = [*lines[:-1], lines[-1].removesuffix(b"\n").removesuffix(b"\r")]
        if not lines[-1]:
            lines.pop()
    return _node(lines, default)


def agree(data: bytes, part: mime.Part, node: Node) -> None:
    """The same tree with the same bytes."""
    assert part.media_type == node.type
    assert data[part.header_start : part.body_start] == node.header
    assert data[part.body_start : part.end] == node.body
    assert len(part.children) == len(node.children)
    for child, child_node in zip(part.children, node.children, strict=True):
        agree(data, child, child_node)
    assert (part.message is None) == (node.message is None)
    if part.message is not None and node.message is not None:
        assert part.message.header_start == part.body_start
        agree(data, part.message, node.message)
        assert part.envelope is not None
    if part.type == "text" or part.message is not None:
        assert part.lines == node.body.count(b"\n")


def sections(node: Node) -> Iterator[tuple[tuple[int, ...], str, bytes]]:
    """Every section of a message and its bytes, as RFC 9051 §6.4.5.1 numbers them."""
    yield (), "", node.header + node.body
    yield from _of_message((), node)


def _of_message(path: tuple[int, ...], node: Node) -> Iterator[tuple[tuple[int, ...], str, bytes]]:
    yield path, "HEADER", node.header
    yield path, "TEXT", node.body
    for number, child in enumerate(node.children or [node], 1):
        yield from _of_part((*path, number), child)


def _of_part(path: tuple[int, ...], node: Node) -> Iterator[tuple[tuple[int, ...], str, bytes]]:
    yield path, "", node.body
    yield path, "MIME", node.header
    if node.message is not None:
        yield from _of_message(path, node.message)
    for number, child in enumerate(node.children, 1):
        yield from _of_part((*path, number), child)


def check(data: bytes) -> mime.Description:
    """All that holds for any message that the model reads as well."""
    description = mime.describe(data)
    structure, model = description.structure, read(data)
    agree(data, structure, model)
    seen = set()
    for path, kind, expected in sections(model):
        found = mime.section(structure, path, kind)  # type: ignore[arg-type]
        assert found is not None and data[found[0] : found[1]] == expected, (path, kind)
        seen.add((path, kind))
    paths = {path for path, _ in seen}
    for path in paths:  # and no section beside these
        for extra in ((*path, 0), (*path, 99)):
            assert mime.section(structure, extra, "") is None
        for kind in ("HEADER", "TEXT", "MIME"):
            if (path, kind) not in seen:
                assert mime.section(structure, path, kind) is None  # type: ignore[arg-type]
    assert mime.describe(memoryview(data)) == description
    return description


# ---- messages made by hand, with every freedom that RFC 2046 §5.1.1 leaves -------------------------------------------

_LEAVES = ["text/plain", "TEXT/html; charset=utf-8", "image/png; name=x.png", "application/octet-stream", ""]
_BODY_LINES = st.lists(
    st.sampled_from([b"", b"hello", b"--", b"-- ", b"--b", b"--b0x", b"----b1", b"a: b", b"c c"]), max_size=4
)


@st.composite
def entities(draw: st.DrawFn, depth: int = 0) -> bytes:
    """A header and a body, lines ending in LF. Boundaries are b0, b1… by depth, with lookalikes in the text."""
    fields = draw(st.lists(st.sampled_from([b"Subject: x\n y", b"X: 1", b"From: a@b", b"no field"]), max_size=3))
    kind = draw(st.sampled_from(["leaf", "leaf", "multipart", "digest", "message"])) if depth < 4 else "leaf"
    if kind == "leaf":
        media_type = draw(st.sampled_from(_LEAVES)).encode()
        fields += [b"Content-Type: " + media_type] if media_type else []
        body = b"\n".join(draw(_BODY_LINES))
    elif kind == "message":
        fields.append(b"Content-Type: message/rfc822")
        body = draw(entities(depth + 1))
    else:
        boundary = b"b%d" % depth
        subtype = b"digest" if kind == "digest" else b"mixed"
        quoted = b'"' + boundary + b'"' if draw(st.booleans()) else boundary
        fields.append(b"Content-Type: multipart/" + subtype + b";\n boundary=" + quoted)
        padding = draw(st.sampled_from([b"", b" ", b"\t "]))
        parts = draw(st.lists(entities(depth + 1), max_size=3))
        body = b"".join(b"--" + boundary + padding + b"\n" + part + b"\n" for part in parts)
        body = draw(st.sampled_from([b"", b"preamble\n", b"\n"])) + body
        body += draw(st.sampled_from([b"", b"--" + boundary + b"--", b"--" + boundary + b"--\nepilogue\n"]))
    blank = draw(st.sampled_from([b"\n", b"\n", b"\n", b""]))  # a header may lack its blank line
    return b"".join(line + b"\n" for line in fields) + blank + body


@settings(max_examples=300, deadline=None)
@given(entities(), st.booleans())
def test_generated_messages_are_read_as_the_model_reads_them(message: bytes, crlf: bool) -> None:
    check(message.replace(b"\n", b"\r\n") if crlf else message)


@settings(max_examples=150, deadline=None)
@given(entities(), st.data())
def test_mixed_line_ends(message: bytes, data: st.DataObject) -> None:
    pieces = message.split(b"\n")
    ends = data.draw(st.lists(st.sampled_from([b"\n", b"\r\n"]), min_size=len(pieces), max_size=len(pieces)))
    check(b"".join(piece + end for piece, end in zip(pieces, ends, strict=True)))


# ---- messages made by the standard library, and its parser ----------------------------------------------------------


@st.composite
def library_messages(draw: st.DrawFn, depth: int = 0) -> Message:
    kind = draw(st.sampled_from(["text", "binary", "multipart", "message"])) if depth < 3 else "text"
    message: Message
    if kind == "text":
        message = MIMEText(
            draw(st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=80)), "plain", "utf-8"
        )
    elif kind == "binary":
        message = MIMEBase("application", "pdf", name="файл.pdf")
        message.set_payload(draw(st.binary(max_size=200)))
        email.encoders.encode_base64(message)
    elif kind == "message":
        inner = draw(library_messages(depth + 1))
        inner["Subject"] = "inner"
        message = MIMEMessage(inner)
    else:
        children = draw(st.lists(library_messages(depth + 1), min_size=1, max_size=3))
        message = MIMEMultipart("mixed", None, children)
    return message


@settings(max_examples=150, deadline=None)
@given(library_messages(), st.booleans())
def test_library_messages_are_read_as_the_library_reads_them(built: Message, crlf: bool) -> None:
    built["From"] = "a@example.org"
    data = built.as_bytes(policy=email.policy.compat32.clone(linesep="\r\n" if crlf else "\n"))
    description = check(data)
    _same(data, description.structure, message_from_bytes(data))


def _same(data: bytes, part: mime.Part, parsed: Message) -> None:
    assert part.media_type == parsed.get_content_type()
    if part.message is not None:
        _same(data, part.message, parsed.get_payload(0))  # type: ignore[arg-type]
    elif part.children:
        payload = parsed.get_payload()
        assert isinstance(payload, list) and len(payload) == len(part.children)
        for child, child_parsed in zip(part.children, payload, strict=True):
            assert isinstance(child_parsed, Message)
            _same(data, child, child_parsed)
    else:
        body = data[part.body_start : part.end]
        assert mime.decode_part(body, part.encoding) == parsed.get_payload(decode=True)
        assert mime.filename(part) == ("файл.pdf" if parsed.get_content_subtype() == "pdf" else None)


# ---- every message found --------------------------------------------------------------------------------------------

_OURS = Path(__file__).parent.parent / "corpus" / "mime"
_PYTHONS = Path(sysconfig.get_path("stdlib")) / "test" / "test_email" / "data"
CORPUS = sorted(_OURS.glob("*.eml")) + sorted(_PYTHONS.glob("*.txt"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
@pytest.mark.parametrize("ends", ["as it is", "CRLF"])
def test_corpus(path: Path, ends: str) -> None:
    data = path.read_bytes()
    if ends == "CRLF":
        data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    description = check(data)
    encoded = msgspec.msgpack.encode(description)
    assert msgspec.msgpack.decode(encoded, type=mime.Description) == description
    assert len(mime.search_text(data, description.structure)) >= 0
