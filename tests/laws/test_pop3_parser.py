"""POP3's pure parts: any split of the bytes gives the same, any bytes raise nothing but SyntaxRefused; what TOP gives and what
sizes say, against plain models."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.domain.refusal import Reason, Refusal
from cluster.formats import mime
from protocols.pop3 import writer
from protocols.pop3.errors import refused
from protocols.pop3.extract import Beginning
from protocols.pop3.model import Line, Reply, Request, SyntaxRefused
from protocols.pop3.parser import ANSWER_BYTES_MAX, COMMAND_BYTES_MAX, RUNAWAY_BYTES_MAX, Parser
from protocols.stuffing import Stuffing

Heard = list[Request | Line | tuple[str, bool]]


def heard(pieces: list[bytes]) -> Heard:
    """AUTH is answered with a challenge each time."""
    parser, out = Parser(), Heard()
    for piece in pieces:
        parser.feed(piece)
        while True:
            try:
                value = parser.next()
            except SyntaxRefused as error:
                out.append((error.text, error.fatal))
                if error.fatal:
                    return out
                continue
            if value is None:
                break
            out.append(value)
            if isinstance(value, Request) and value.word == "AUTH":
                parser.expect_answer()
    return out


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


words = st.sampled_from([b"USER", b"pass", b"Auth", b"LIST", b"TOP", b"nonsense-word-that-is-long", b"", b"\xff"])
arguments = st.sampled_from([b"", b" ", b" 1", b" 1 2", b" anna@example.org", b" a  b ", b" \x00", b" \xc3\xa9", b" " + b"x" * 300])
streams = st.lists(st.tuples(words, arguments, st.sampled_from([b"\r\n", b"\n", b"\r\r\n", b""])).map(b"".join)).map(b"".join)
cuts = st.lists(st.integers(0, 1 << 20), max_size=9)


@given(streams | st.binary(max_size=400), cuts)
def test_any_split_of_the_bytes_gives_the_same(data: bytes, places: list[int]) -> None:
    assert heard(cut(data, places)) == heard([data])


def test_the_argument_is_what_stood_there() -> None:
    """RFC 1939 §7: a password may have blanks."""
    assert heard([b"pass  a b \r\nQUIT\n"]) == [Request("PASS", b" a b "), Request("QUIT", b"")]


@pytest.mark.parametrize(("size", "taken"), [(COMMAND_BYTES_MAX, True), (COMMAND_BYTES_MAX + 1, False)])
def test_a_command_has_255_bytes(size: int, taken: bool) -> None:
    """RFC 2449 §4."""
    line = b"USER " + b"x" * (size - 7) + b"\r\n"
    assert isinstance(heard([line])[0], Request) is taken
    assert heard([line + b"NOOP\r\n"])[1] == Request("NOOP", b"")


def test_an_answer_of_sasl_is_longer() -> None:
    """RFC 5034 §4."""
    long = b"x" * (ANSWER_BYTES_MAX - 2)
    assert heard([b"AUTH PLAIN\r\n" + long + b"\r\n"])[1] == Line(long)
    assert heard([b"AUTH PLAIN\r\nx" + long + b"\r\nNOOP\r\n"])[1:] == [("The line is too long.", False), Request("NOOP", b"")]


def test_a_token_may_come_with_auth() -> None:
    """RFC 5034 §4 would have it come as an answer; programs do not always."""
    long = b"x" * 3000
    assert heard([b"auth XOAUTH2 " + long + b"\r\nNOOP\r\n"]) == [Request("AUTH", b"XOAUTH2 " + long), Line(b"NOOP")]
    too_long = b"AUTH XOAUTH2 " + b"x" * ANSWER_BYTES_MAX + b"\r\nNOOP\r\n"
    assert heard([too_long]) == [("The line is too long.", False), Request("NOOP", b"")]
    assert heard(cut(too_long, [3, 100, 5000])) == heard([too_long])


def test_a_line_without_an_end_costs_no_memory() -> None:
    parser = Parser()
    with pytest.raises(SyntaxRefused) as raised:
        for _ in range(RUNAWAY_BYTES_MAX // 1000 + 2):
            parser.feed(b"x" * 1000)
            parser.next()
    assert raised.value.fatal


def test_passwords_are_in_no_log() -> None:
    assert "secret" not in repr(heard([b"PASS secret\r\nAUTH PLAIN secret\r\nsecret\r\n"]))


@given(st.text(), st.sampled_from(["", "SYS/TEMP"]), st.booleans())
def test_an_answer_is_one_line_of_512_bytes(text: str, code: str, ok: bool) -> None:
    """RFC 2449 §4."""
    line = writer.written(Reply(ok, text, code))
    assert len(line) <= 512 and line.endswith(b"\r\n") and line.count(b"\n") == line.count(b"\r") == 1
    assert line.startswith(b"+OK" if ok else b"-ERR")
    assert line.split(b" ", 1)[-1].lstrip().startswith(b"[") is bool(code)  # RFC 2449 §8


def test_only_what_is_wrong_with_the_password_says_auth() -> None:
    """RFC 3206 §4: a program that hears AUTH asks its user for another password."""
    codes = {reason: refused(Refusal(reason)).code for reason in Reason}
    assert {reason for reason, code in codes.items() if code == "AUTH"} == {Reason.WRONG_PASSWORD, Reason.ACCOUNT_SUSPENDED}
    assert codes[Reason.THROTTLED] == codes[Reason.UNAVAILABLE] == "SYS/TEMP"


# -- messages -------------------------------------------------------------------------------------------------------------

bodies = st.lists(st.sampled_from([b"\r\n", b"\n", b"\r", b".", b"..", b"a", b"Subject: x", b" "]), max_size=30).map(b"".join)


def sent(data: bytes, places: list[int], lines: int | None = None) -> bytes:
    stuffing, beginning, out = Stuffing(), Beginning(lines or 0), b""
    for piece in cut(data, places):
        stuffed = stuffing.stuffed(piece)
        out += stuffed if lines is None else beginning.of(stuffed)
        if lines is not None and beginning.done:
            return out + b".\r\n"
    return out + stuffing.end()


def received(data: bytes) -> bytes:
    """As a client reads it: lines, until the one that is a dot."""
    assert data.count(b"\n") == data.count(b"\r") == data.count(b"\r\n") and data.endswith(b".\r\n")
    lines = data.split(b"\r\n")[:-1]
    assert lines.index(b".") == len(lines) - 1
    return b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:-1])


@given(bodies | st.binary(max_size=200), cuts)
def test_what_a_client_receives_has_the_size_that_it_was_told(data: bytes, places: list[int]) -> None:
    """RFC 1939 §3 and §11."""
    described = mime.describe(data)
    assert len(received(sent(data, places))) == described.size + described.crlf_added
    assert mime.describe(memoryview(data)).crlf_added == described.crlf_added


def test_what_came_with_whole_lines_comes_byte_for_byte() -> None:
    data = b"Subject: x\r\n\r\n.\r\n..\r\n.a\r\n"
    assert received(sent(data, [])) == data and mime.describe(data).crlf_added == 0


def test_line_ends_across_the_windows_of_a_view() -> None:
    size = 1 << 20
    data = b"x" * (size - 1) + b"\r\n" + b"y" * (size - 2) + b"\n\r"
    assert mime.describe(memoryview(data)).crlf_added == mime.describe(data).crlf_added == 2


@given(bodies, cuts, st.integers(0, 5))
def test_top_is_the_header_and_so_many_lines(data: bytes, places: list[int], lines: int) -> None:
    """RFC 1939 §7."""
    whole = received(sent(data, [])).split(b"\r\n")[:-1]
    header = whole.index(b"") + 1 if b"" in whole else len(whole)
    assert received(sent(data, places, lines)) == b"".join(line + b"\r\n" for line in whole[: header + lines])
