"""Addresses: one spelling, nothing accepted that is none, and what a +detail is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.domain.directory import addresses

pieces = st.sampled_from(
    ['"', "\\", "@", ".", "+", " ", "a", "Ä", "ß", "ﬀ", "İ", "xn--", "[", "]", "127.0.0.1", "\x00", "\ud800", "。"]
)
anything = st.one_of(st.text(), st.lists(pieces, max_size=12).map("".join), st.emails())


@given(anything)
def test_any_text_is_answered_and_a_canonical_address_is_its_own(text: str) -> None:
    canonical, preserved = addresses.canonical(text), addresses.preserved(text)
    assert (canonical is None) == (preserved is None)
    if canonical is None or preserved is None:
        return
    assert addresses.canonical(canonical) == canonical
    assert addresses.canonical(preserved) == canonical and addresses.preserved(preserved) == preserved
    for address in (canonical, preserved):
        local, _, domain = address.rpartition("@")
        # RFC 5321 §4.5.3.1, RFC 6531 §3.3
        assert 0 < len(local.encode()) <= 64 and 0 < len(domain) <= 253 and len(address.encode()) <= 254
        assert domain.isascii() and domain == domain.lower() and not any(c in address for c in "\r\n\0")


@given(st.emails())
def test_addresses_as_of_the_standard_are_accepted_in_any_case(address: str) -> None:
    if address.rpartition("@")[2].rpartition(".")[2].isdigit():
        return
    canonical = addresses.canonical(address)
    assert canonical is not None
    assert canonical == addresses.canonical(address.upper()) == addresses.canonical(address.lower())


@given(anything)
def test_a_detail_is_what_is_left_out(text: str) -> None:
    canonical = addresses.canonical(text)
    if canonical is None:
        return
    base, detail = addresses.split_plus(canonical)
    assert addresses.canonical(base) == base or base.partition("@")[0].endswith(".")
    assert addresses.domain_of(base) == addresses.domain_of(canonical)
    assert addresses.split_plus(base) == (base, "") and len(base) + len(detail) <= len(canonical)


@pytest.mark.parametrize(
    ("given_address", "canonical"),
    [
        ("Anna@Example.ORG", "anna@example.org"),
        ("anna@example.org.", "anna@example.org"),
        ("ANNA@MÜNCHEN.example", "anna@xn--mnchen-3ya.example"),
        ("anna@XN--MNCHEN-3YA.example", "anna@xn--mnchen-3ya.example"),
        ("Jörg@example.org", "jörg@example.org"),
        ("JO\u0308RG@example.org", "jörg@example.org"),
        ('"anna"@example.org', "anna@example.org"),
        ('"An\\na"@example.org', "anna@example.org"),
        ('"an na"@example.org', '"an na"@example.org'),
        ('"a@b"@example.org', '"a@b"@example.org'),
        ("o'hara+x=y@localhost", "o'hara+x=y@localhost"),
        ("a@[127.0.0.1]", "a@[127.0.0.1]"),
        ("a@[IPv6:2001:DB8:0::1]", "a@[ipv6:2001:db8::1]"),
    ],
)
def test_one_spelling(given_address: str, canonical: str) -> None:
    assert addresses.canonical(given_address) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "", "anna", "@example.org", "anna@", "a b@example.org", "a..b@example.org", ".a@example.org", "a.@example.org",
        "a@-x.org", "a@x-.org", "a@x..org", "a@.org", "a@x_y.org", "a@192.0.2.1", "a@[1.2.3]", "a@[IPv6:zz]", "a\n@x.org",
        "a@x.org\r\nRCPT TO:<b@y.org>", '"a@x.org', '"a"b@x.org', "<a@x.org>", "ä" * 33 + "@x.org", "a" * 65 + "@x.org",
        "a@" + "x" * 64 + ".org", "a@" + "x." * 126 + "org", "a,b@x.org", "a\u00a0b@x.org", "a@x\u2024org..de",
    ],
)  # fmt: skip
def test_no_addresses(text: str) -> None:
    assert addresses.canonical(text) is None and addresses.preserved(text) is None


def test_the_case_of_others_local_parts_is_theirs() -> None:
    # RFC 5321 §2.4
    assert addresses.preserved("Anna.B@Example.ORG") == "Anna.B@example.org"


@pytest.mark.parametrize(
    ("address", "split"),
    [
        ("anna+lists@x.org", ("anna@x.org", "lists")),
        ("anna+a+b@x.org", ("anna@x.org", "a+b")),
        ("anna@x.org", ("anna@x.org", "")),
        ("+anna@x.org", ("+anna@x.org", "")),
        ('"a+b c"@x.org', ('"a+b c"@x.org', "")),
    ],
)
def test_details(address: str, split: tuple[str, str]) -> None:
    assert addresses.split_plus(address) == split
