"""What a client says with a token (RFC 7628 §3.1, and XOAUTH2): read as it was said, and any bytes refused in one way."""

from hypothesis import given
from hypothesis import strategies as st

from protocols import bearer

TOKENS = st.text(st.sampled_from("abcXYZ019-._~+/"), min_size=1, max_size=60)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0\x01"), min_size=1, max_size=40)


@given(NAMES, TOKENS)
def test_what_was_said_is_heard(name: str, token: str) -> None:
    escaped = name.replace("=", "=3D").replace(",", "=2C").encode()  # RFC 5801 §4
    said = b"n,a=" + escaped + b",\x01host=mail.example\x01port=993\x01auth=Bearer " + token.encode() + b"\x01\x01"
    assert bearer.oauthbearer(said) == bearer.Given(name, token)
    assert bearer.xoauth2(b"user=" + name.encode() + b"\x01auth=Bearer " + token.encode() + b"\x01\x01") == (name, token)


@given(st.one_of(st.binary(max_size=80), st.lists(st.sampled_from(
    [b"n,", b"y,", b"a=x", b",", b"\x01", b"auth=", b"Bearer ", b"t", b"user=", b"=", b"\0", b"\xff"]), max_size=12
).map(b"".join)))  # fmt: skip
def test_any_bytes(message: bytes) -> None:
    for read in (bearer.oauthbearer, bearer.xoauth2):
        try:
            given_ = read(message)
        except bearer.BearerRefused:
            continue
        assert b"\x01\x01" in message and "\x01" not in given_.address + given_.token
