"""Where a reply ends is known however the bytes were cut: only there a goodbye may be put in (RFC 9051 §4.3)."""

from hypothesis import given
from hypothesis import strategies as st

from protocols.imap.carrying import Told

LITERAL = st.binary(max_size=80)
WORDS = st.text(st.sampled_from('abc ()"*{}3BYE\\'), max_size=60).map(lambda text: text.encode())


@st.composite
def reply(draw: st.DrawFn) -> bytes:
    """One line, or several with literals between them; no other line ends like one that is followed by a literal."""
    out = draw(st.sampled_from([b"* ", b"a1 ", b"+ ", b"* OK ", b"* 1 FETCH ("]))
    for literal in draw(st.lists(LITERAL, max_size=3)):
        out += draw(WORDS) + b" {%d}\r\n" % len(literal) + literal
    return out + draw(WORDS) + b").\r\n"


@given(st.lists(reply(), min_size=1, max_size=5), st.data())
def test_it_is_clear_between_replies_and_nowhere_else(replies: list[bytes], data: st.DataObject) -> None:
    told, stream = Told(), b"".join(replies)
    ends = {0}
    for one in replies:
        ends.add(max(ends) + len(one))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8))) + [len(stream)]
    at = 0
    for cut in cuts:
        told.feed(stream[at:cut])
        at = cut
        assert told.clear == (at in ends)
    assert told.bye == any(one.startswith(b"* BYE ") for one in replies)


@given(st.lists(reply(), max_size=3), st.integers(1, 9))
def test_a_goodbye_is_heard_in_any_pieces(replies: list[bytes], size: int) -> None:
    told, stream = Told(), b"".join(replies) + b"* BYE [UNAVAILABLE] The server is stopping; come back in a moment.\r\n"
    for at in range(0, len(stream), size):
        told.feed(stream[at : at + size])
    assert told.bye and told.clear


def test_a_message_that_says_goodbye_is_none() -> None:
    told = Told()
    told.feed(b"* 1 FETCH (BODY[] {10}\r\n* BYE me\r\n")
    assert not told.bye and not told.clear
    told.feed(b" UID 7)\r\n")
    assert not told.bye and told.clear
