"""Headers: addresses, dates, parameters, encoded words, subjects, against the examples of the standards and against chance."""

from __future__ import annotations

import email.header
import email.utils
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.formats import mime
from cluster.formats.mime import Address


def A(name: str | None, mailbox: str | None, host: str | None, adl: str | None = None) -> Address:
    return Address(*(None if text is None else text.encode() for text in (name, adl, mailbox, host)))


END = A(None, None, None)

ADDRESSES = [
    # RFC 5322 appendix A.1.1 to A.1.3
    ("John Doe <jdoe@machine.example>", [A("John Doe", "jdoe", "machine.example")]),
    (
        'Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>, <boss@nil.test>, "Giant; \\"Big\\" Box" <s@e.com>',
        [
            A("Mary Smith", "mary", "x.test"),
            A(None, "jdoe", "example.org"),
            A("Who?", "one", "y.test"),
            A(None, "boss", "nil.test"),
            A('Giant; "Big" Box', "s", "e.com"),
        ],
    ),
    (
        "A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
        [
            A(None, "A Group", None),
            A("Ed Jones", "c", "a.test"),
            A(None, "joe", "where.test"),
            A("John", "jdoe", "one.test"),
            END,
        ],
    ),
    ("Undisclosed recipients:;", [A(None, "Undisclosed recipients", None), END]),
    # appendix A.5: comments and blanks; A.6.1: obsolete forms with a source route and empty members
    ("Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>", [A("Pete", "pete", "silly.test")]),
    (
        "A Group(Some people)\r\n :Chris Jones <c@(Chris's host.)public.example>,\r\n joe@example.org,\r\n John <j@one.test>;",
        [
            A(None, "A Group", None),
            A("Chris Jones", "c", "public.example"),
            A(None, "joe", "example.org"),
            A("John", "j", "one.test"),
            END,
        ],
    ),
    ("Joe Q. Public <john.q.public@example.com>", [A("Joe Q. Public", "john.q.public", "example.com")]),
    (
        "Mary Smith <@node.test,@b.test:mary@example.net>, , jdoe@test  . example",
        [A("Mary Smith", "mary", "example.net", "@node.test,@b.test"), A(None, "jdoe", "test.example")],
    ),
    # RFC 822 style: the name in a comment
    ("joe@example.org (Joe (the) Doe)", [A("Joe (the) Doe", "joe", "example.org")]),
    ('"john doe"@example.org', [A(None, "john doe", "example.org")]),
    ("<joe@[192.0.2.1]>", [A(None, "joe", "[192.0.2.1]")]),
    ("joe@[IPv6:2001:db8::1]", [A(None, "joe", "[IPv6:2001:db8::1]")]),
    ("Jörg <jörg@bücher.example>", [A("Jörg", "jörg", "bücher.example")]),  # RFC 6532
    ("=?utf-8?q?J=C3=B6rg?= <j@b.example>", [A("=?utf-8?q?J=C3=B6rg?=", "j", "b.example")]),
    # what agents write instead
    ("a@b.example <a@b.example>", [A("a@b.example", "a", "b.example")]),
    ("a@b.example; c@d.example", [A(None, "a", "b.example"), A(None, "c", "d.example")]),
    ("Nobody", [A(None, "Nobody", "")]),
    ("<>", []),
    ("", []),
    (" , ,", []),
    ("Alice <a@b.example, c@d.example", [A("Alice", "a", "b.example"), A(None, "c", "d.example")]),
    ('"Alice <a@b.example>', [A(None, "Alice <a@b.example>", "")]),
    ("Alice (open <a@b.example>", [A("Alice (open", "a", "b.example")]),
    ("team: a@b.example", [A(None, "team", None), A(None, "a", "b.example"), END]),
    ('"Doe, John" <j@d.example>,k@l.example', [A("Doe, John", "j", "d.example"), A(None, "k", "l.example")]),
]


@pytest.mark.parametrize(("value", "expected"), ADDRESSES, ids=[value[:30] for value, _ in ADDRESSES])
def test_addresses(value: str, expected: list[Address]) -> None:
    assert list(mime.parse_addresses(value)) == expected


_LOCAL = st.from_regex(r"[a-z0-9!#+_-]{1,8}(\.[a-z0-9]{1,5})?", fullmatch=True)
_HOST = st.from_regex(r"[a-z0-9]{1,8}(\.[a-z]{2,5}){0,2}", fullmatch=True)
_NAME = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), max_size=12).map(
    lambda name: " ".join(name.split())
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(_NAME, _LOCAL, _HOST), max_size=4))
def test_addresses_that_the_library_wrote(people: list[tuple[str, str, str]]) -> None:
    value = ", ".join(email.utils.formataddr((name, f"{local}@{host}")) for name, local, host in people)
    assert list(mime.parse_addresses(value)) == [A(name or None, local, host) for name, local, host in people]
    assert [mime.addr_spec(address) for address in mime.parse_addresses(value)] == [
        f"{local}@{host}" for _, local, host in people
    ]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1), _HOST)
def test_any_local_part_survives_when_it_is_quoted(local: str, host: str) -> None:
    written = mime.addr_spec(A(None, local, host))
    assert mime.parse_addresses(written) == (A(None, local, host),)


def test_one_address() -> None:
    assert mime.parse_address(b"Group: Ed <ed@x.example>;") == A("Ed", "ed", "x.example")
    assert mime.parse_address("Nobody, Undisclosed:;") is None


DATES = [  # RFC 5322 appendix A, RFC 3501, and what is met in mail
    ("Fri, 21 Nov 1997 09:55:06 -0600", "1997-11-21T09:55:06-06:00"),
    (
        "Thu,\r\n      13\r\n        Feb\r\n          1969\r\n      23:32\r\n               -0330 (Newfoundland Time)",
        None,
    ),  # before 1970
    ("21 Nov 97 09:55:06 GMT", "1997-11-21T09:55:06+00:00"),
    ("Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", "1997-11-21T09:55:06-06:00"),
    ("Mon, 1 Jan 2024 00:00:60 +0530 (IST)", "2024-01-01T00:00:59+05:30"),
    ("Mon, 01 January 2024 8:05 EST", "2024-01-01T08:05:00-05:00"),
    ("1 Jan 24 08:05:00 Z", "2024-01-01T08:05:00+00:00"),
    ("Mon Jan  1 08:05:00 2024", "2024-01-01T08:05:00+00:00"),
    ("Mon Jan  1 08:05:00 CET 2024", "2024-01-01T08:05:00+01:00"),
    ("2024-01-01T08:05:00+01:00", "2024-01-01T08:05:00+01:00"),
    ("1-Jan-2024 08:05:00 +0100", "2024-01-01T08:05:00+01:00"),
    ("Mon, 1 Jan 2024 08:05:00 +9999", "2024-01-01T08:05:00+00:00"),
    ("Sat, 29 Feb 2020 08:05:00 +0100", "2020-02-29T08:05:00+01:00"),
    ("Fri, 29 Feb 2019 08:05:00 +0100", None),
    ("1 Jan 2101 00:00:00 +0000", None),
    ("1 Foo 2020 00:00:00 +0000", None),
    ("1 Jan 2020 24:00:00 +0000", None),
    ("yesterday", None),
    ("", None),
]


@pytest.mark.parametrize(("value", "expected"), DATES, ids=[value[:30] for value, _ in DATES])
def test_dates(value: str, expected: str | None) -> None:
    found = mime.parse_date(value.encode())
    if expected is None:
        assert found is None
    else:
        moment = datetime.fromisoformat(expected)
        offset = moment.utcoffset()
        assert offset is not None
        assert found == (int(moment.timestamp()), int(offset.total_seconds()) // 60)


_MOMENTS = st.integers(86_400, 4_102_000_000)
_ZONES = st.integers(-14 * 60, 14 * 60)


@given(_MOMENTS, _ZONES)
def test_dates_come_back(seconds: int, zone: int) -> None:
    written = mime.format_date(seconds, zone)
    assert written == email.utils.format_datetime(datetime.fromtimestamp(seconds, timezone(timedelta(minutes=zone))))
    assert mime.parse_date(written) == (seconds, zone)
    assert mime.parse_internaldate(mime.format_internaldate(seconds, zone)) == (seconds, zone)


def test_internaldate() -> None:
    moment = int(datetime(1996, 7, 17, 9, 44, 25, tzinfo=UTC).timestamp())
    assert mime.parse_internaldate("17-Jul-1996 02:44:25 -0700") == (moment, -420)  # RFC 9051 §2.3.3
    assert mime.format_internaldate(moment, -420) == "17-Jul-1996 02:44:25 -0700"
    assert mime.format_internaldate(0) == " 1-Jan-1970 00:00:00 +0000"  # date-day-fixed
    assert mime.parse_internaldate(b" 1-jan-1970 00:00:00 +0000") == (0, 0)
    for wrong in (
        "1-Jan-1970 00:00:00 +0000",
        "31-Feb-2020 00:00:00 +0000",
        "17-Jul-1996 02:44:25 -0760",
        "",
        " 1-Jan-1970",
    ):
        assert mime.parse_internaldate(wrong) is None


WORDS = [  # RFC 2047 §8, and the sins of agents
    (b"=?ISO-8859-1?Q?a?=", "a"),
    (b"=?ISO-8859-1?Q?a?= b", "a b"),
    (b"=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
    (b"=?ISO-8859-1?Q?a?=   =?ISO-8859-1?Q?b?=", "ab"),
    (b"=?ISO-8859-1?Q?a_b?=", "a b"),
    (b"=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
    (b"=?US-ASCII*EN?Q?Keith_Moore?=", "Keith Moore"),  # RFC 2231 §5
    (b"=?iso-8859-8?b?7eXs+SDv4SDp7Oj08A==?=", "םולש ןב ילטפנ"),
    (b"=?utf-8?b?w?= =?utf-8?b?w7w=?=", "ü"),  # a lone digit is dropped
    (b"=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),  # a character cut in two
    (b"x =?utf-8?q?=C3=BC?=y", "x üy"),
    (b"=?nonsense?q?a=E4?=", "aä"),
    (b"=?utf-8?x?a?= =?utf-8?q?a", "=?utf-8?x?a?= =?utf-8?q?a"),
    (b"caf\xe9", "café"),
    ("café".encode(), "café"),
]


@pytest.mark.parametrize(("value", "expected"), WORDS)
def test_encoded_words(value: bytes, expected: str) -> None:
    assert mime.decode_words(value) == expected


@given(st.text(st.characters(codec="utf-8", categories=["L", "N"]), max_size=60), st.sampled_from(["utf-8", "gb18030"]))
def test_words_that_the_library_wrote(text: str, charset: str) -> None:
    value = email.header.Header(text, charset).encode(linesep="\r\n").replace("\r\n", "").encode()
    assert mime.decode_words(value) == text


def params(value: bytes) -> mime.Part:
    return mime.describe(b"Content-Type: " + value + b"\r\n\r\n").structure


PARAMETERS = [
    (b"text/plain; charset=us-ascii (Plain text)", "charset", "us-ascii"),  # RFC 2045 §5.1
    (b'text/plain; charset="us-ascii"', "charset", "us-ascii"),
    (b"text/plain ; CHARSET = utf-8 ; x=y", "charset", "utf-8"),
    (b'text/plain; name="a \\"b\\".txt"', "name", 'a "b".txt'),
    (b"text/plain; name=two words.txt; x=y", "name", "two words.txt"),
    (b'text/plain; name="open', "name", "open"),
    (b"text/plain; name==?utf-8?q?=C3=BC?=", "name", "ü"),
    # RFC 2231 §3, §4, §4.1
    (b'message/external-body; URL*0="ftp://";\r\n URL*1="cs.utk.edu/pub"', "url", "ftp://cs.utk.edu/pub"),
    (b"application/x-stuff; title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A", "title", "This is ***fun***"),
    (
        b"application/x-stuff; title*2=\"isn't it!\"; title*0*=us-ascii'en'This%20is%20even%20more%20;\r\n"
        b" title*1*=%2A%2A%2Afun%2A%2A%2A%20",
        "title",
        "This is even more ***fun*** isn't it!",
    ),
    (b"text/plain; name*=utf-8''%C3%BC; name=u", "name", "ü"),
    (b"text/plain; name*1=x", "name", None),
    (b"text/plain; name*99999=x; name*x=y; name*0*0=z", "name", None),
    (b"text/plain", "name", None),
]


@pytest.mark.parametrize(("value", "name", "expected"), PARAMETERS)
def test_parameters(value: bytes, name: str, expected: str | None) -> None:
    assert mime.parameter(params(value).params, name) == expected


def test_parameters_are_kept_raw_and_in_order() -> None:
    assert params(b'text/x; B*1*=%41; a="x\\\\y"; B*0=q').params == (("b*1*", b"%41"), ("a", b"x\\y"), ("b*0", b"q"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"TEXT/HTML;x", "text/html"),
        (b"(c) text / html", "text/html"),
        (b"text", "text/plain"),
        (b"", "text/plain"),
        (b"/;", "text/plain"),
    ],
)
def test_media_types(value: bytes, expected: str) -> None:
    assert params(value).media_type == expected


SUBJECTS = [  # RFC 5256 §2.1
    ("Re: hello", "hello"),
    ("RE: re:Fw: FWD : hello (fwd) (FWD)", "hello"),
    ("[list] hello", "hello"),
    ("Re: [list] Re[2]: hello", "hello"),
    ("[list] [x] Re: [y] hello", "hello"),
    ("[only]", "[only]"),
    ("Re: [a] [only]", "[only]"),
    ("[fwd: Re: hello]", "hello"),
    ("Fwd: [fwd: [list] hello (fwd)] (fwd)", "hello"),
    ("  a\t\tb  ", "a b"),
    ("Re:", ""),
    ("", ""),
    ("regarding: x", "regarding: x"),
    ("[fwd: ]", ""),
]


@pytest.mark.parametrize(("value", "expected"), SUBJECTS)
def test_base_subjects(value: str, expected: str) -> None:
    assert mime.base_subject(value) == expected


@given(st.text("rRefFwWdD:[]() x", max_size=40))
def test_a_base_subject_is_its_own(value: str) -> None:
    base = mime.base_subject(value)
    assert mime.base_subject(base) == base
    assert mime.base_subject("Re: " + value) in (base, mime.base_subject(value.lstrip()))
