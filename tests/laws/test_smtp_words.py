"""Paths, parameters, replies, trace fields, SCRAM: pure functions."""

import email
import email.policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.domain.refusal import Reason, Refusal
from protocols.smtp import bounce, errors, paths, trace
from protocols.smtp.model import Path, Reply, SyntaxRefused
from protocols.smtp.writer import written

GOOD = {
    b"<a@b>": Path("a", "b"),
    b"<a.b+c@example.org>": Path("a.b+c", "example.org"),
    b'<"a b"@example.org>': Path("a b", "example.org"),
    b'<"a\\"b\\\\"@example.org>': Path('a"b\\', "example.org"),
    b'<"plain"@example.org>': Path("plain", "example.org"),
    b"<@relay.one,@relay.two:a@b.c>": Path("a", "b.c"),
    b"<a@[192.0.2.1]>": Path("a", "[192.0.2.1]"),
    b"<a@[IPv6:2001:db8::1]>": Path("a", "[IPv6:2001:db8::1]"),
    "<ä@exämple.org>".encode(): Path("ä", "exämple.org"),
    b"<a@under_score.example>": Path("a", "under_score.example"),
}
BAD = [
    b"a@b", b"<a@b", b"<a>", b"<@b>", b"<a@>", b"<.a@b>", b"<a.@b>", b"<a..b@c>", b"<a b@c>", b"<a@b c>", b"<a@-b>", b"<a@b.>",
    b'<"a@b>', b'<""@b>', b"<a@[1.2.3]>", b"<a@[IPv6:zz]>", b"<a@[x]>", b"<<a@b>>", b"<a@b>x", b"<a\x00@b>", b"<\xff@b>",
    b"<" + b"a" * 400 + b"@b>", b"<a@b> SIZE=", b"<a@b> =1", b"<a@b> SIZE=1 SIZE=2", b"<>x", b"",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_paths(text: bytes) -> None:
    """RFC 5321 §4.1.2."""
    assert paths.reverse_path(b"FROM:" + text) == (GOOD[text], {})
    assert paths.forward_path(b"to: " + text) == (GOOD[text], {})


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_path(text: bytes) -> None:
    with pytest.raises(SyntaxRefused):
        paths.reverse_path(b"FROM:" + text)


def test_the_null_path_and_postmaster() -> None:
    """RFC 5321 §4.5.5, §4.1.1.3."""
    assert paths.reverse_path(b"FROM:<> SIZE=12 SMTPUTF8") == (Path("", ""), {"SIZE": "12", "SMTPUTF8": None})
    assert paths.forward_path(b"TO:<PostMaster>") == (Path("postmaster", ""), {})
    with pytest.raises(SyntaxRefused):
        paths.forward_path(b"TO:<>")


@given(st.binary(max_size=80))
def test_any_argument_raises_nothing_but_syntax_refused(argument: bytes) -> None:
    for read in (paths.reverse_path, paths.forward_path, paths.hello, paths.chunk):
        for lead in (b"", b"FROM:<", b"TO:<"):
            try:
                read(lead + argument)
            except SyntaxRefused:
                continue


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=40))
def test_a_local_part_survives_its_quoting(local: str) -> None:
    path = Path(local, "example.org")
    assert paths.forward_path(f"TO:<{paths.written_address(path)}>".encode()) == (path, {})


@given(st.text(max_size=600), st.sampled_from(["", "2.0.0"]))
def test_no_text_forges_a_line(text: str, enhanced: str) -> None:
    """RFC 5321 §4.2.1: one CRLF, at the end of each line; each carries the code."""
    lines = written(Reply(250, enhanced, (text, "end"))).split(b"\r\n")
    assert [line[:4] for line in lines] == [b"250-", b"250 ", b""]
    assert not any(b"\r" in line or b"\n" in line for line in lines)


def test_every_reason_has_words() -> None:
    for reason in Reason:
        reply = errors.refused(Refusal(reason, "secret detail"))
        assert str(reply.code)[0] == reply.enhanced[0] and reply.code >= 400
        assert "secret" not in reply.lines[0]


def test_received_says_where_it_came_from() -> None:
    """RFC 5321 §4.4."""
    hop = trace.Hop("there.example", "2001:db8::1", "mail.example.org", "ESMTPS", 0xABC, "TLSv1.3 X", "a@example.org", 0)
    assert trace.received(hop).decode() == (
        "Received: from there.example ([IPv6:2001:db8::1])\r\n\t(using TLSv1.3 X)\r\n\t"
        "by mail.example.org with ESMTPS id abc\r\n\tfor <a@example.org>;\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
    )


@pytest.mark.parametrize(
    ("lmtp", "extended", "secured", "signed_in", "smtputf8", "name"),
    [
        (False, False, False, False, False, "SMTP"),
        (False, True, False, False, False, "ESMTP"),
        (False, True, True, False, False, "ESMTPS"),
        (False, True, True, True, False, "ESMTPSA"),
        (False, True, False, True, False, "ESMTPA"),
        (True, True, False, False, False, "LMTP"),
        (False, True, True, True, True, "UTF8SMTPSA"),
        (True, True, True, False, True, "UTF8LMTPS"),
    ],
)
def test_with_says_how(lmtp: bool, extended: bool, secured: bool, signed_in: bool, smtputf8: bool, name: str) -> None:
    """RFC 3848, RFC 6531 §4.3."""
    assert trace.protocol(lmtp, extended, secured, signed_in, smtputf8) == name


def test_hops_are_counted_in_the_header_only() -> None:
    assert trace.hops(b"Received: a\r\nX: b\r\nRECEIVED: c\r\n d\r\n\r\nReceived: no\r\n") == 2
    assert trace.hops(b"\r\nReceived: no\r\n") == 0


def test_submission_mends_a_header() -> None:
    """RFC 6409 §8; RFC 5322 §3.6.3."""
    whole = b"Date: x\r\nMessage-ID: <y@z>\r\nFrom: a@b\r\n\r\nBcc: body\r\n"
    assert trace.mended(whole, 0, "n@h") == trace.Mended(b"", None)
    bare = b"From: a@b\r\nBCC: c@d,\r\n e@f\r\nTo: g@h\r\n\r\nbody"
    assert trace.mended(bare, 0, "n@h") == trace.Mended(
        b"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nMessage-ID: <n@h>\r\n", b"From: a@b\r\nTo: g@h\r\n\r\n"
    )


TEXTS = st.text(st.sampled_from("a.é \r\n\t:-=\0\u2028"), max_size=20)


@given(TEXTS, st.sampled_from(["x@other.example", "ä@other.example"]), st.integers(0, 599), st.booleans())
def test_a_notification_is_what_it_says(text: str, recipient: str, code: int, expired: bool) -> None:
    """RFC 3464 §2, RFC 6522 §3: three parts, whatever the other host said; read by the standard library."""
    failure = bounce.Failure(recipient, code, f"5.1.1 {text}", "smart.example", expired)
    report = bounce.Report(5, "mail.example.org", "a@example.org", (failure, failure), 0, 1, b"Subject: hi\r\n")
    message = email.message_from_bytes(bounce.notification(report), policy=email.policy.SMTP)  # noqa: TID251
    assert message.get_param("report-type") == "delivery-status" and not message.defects
    explained, status, header = message.iter_parts()
    assert recipient in explained.get_content()
    kind = "message/delivery-status" if recipient.isascii() else "message/global-delivery-status"
    assert status.get_content_type() == kind
    raw = bounce.notification(report).decode()
    assert raw.count("\r\nStatus: ") == 2 and raw.count(f"\r\nStatus: {'5.4.7' if expired else '5.1.1'}\r\n") == 2
    assert raw.count("\r\nFinal-Recipient: ") == 2 and raw.replace("\r\n", "").isprintable()
    assert "Subject: hi" in str(header.get_payload())


@pytest.mark.parametrize(
    ("code", "text", "status"),
    [(550, "5.1.1 No", "5.1.1"), (450, "4.2.1 Later", "5.2.1"), (554, "No", "5.0.0"), (0, "no connection", "5.0.0")],
)
def test_the_status_of_a_failure_is_permanent(code: int, text: str, status: str) -> None:
    """RFC 3464 §2.3.4."""
    assert bounce.Failure("x@y.example", code, text).status == status
