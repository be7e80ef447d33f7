"""SCRAM's server side (RFC 5802) against a foreign client: with and without channel binding, and somebody in between."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scramp import ScramClient, ScramException

from protocols import scram
from protocols.port import Account, ScramKeys

SALT, ROUNDS = b"0123456789abcdef", 4096
ANNA = Account(1, "anna@example.org", "Anna")
HASH = hashlib.sha256(b"a certificate").digest()


def keys(password: str) -> ScramKeys:
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), SALT, ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return ScramKeys(SALT, ROUNDS, stored, hmac.digest(salted, b"Server Key", "sha256"), ANNA)


def exchange(client: ScramClient, password: str, end_point: bytes, plus: bool) -> bool:
    """Whether the server believes the client; the client must believe the server then. Raises ScramRefused."""
    known = keys(password)
    first = scram.client_first(client.get_client_first().encode(), end_point, plus=plus)
    challenge = scram.server_first(first, known, b"n" * 18)
    client.set_server_first(challenge)
    final = scram.server_final(first, challenge, known, client.get_client_final().encode())
    if final is None:
        return False
    client.set_server_final(final)
    return True


def plus_client(data: bytes, password: str = "secret", kind: str = "tls-server-end-point") -> ScramClient:
    return ScramClient(["SCRAM-SHA-256-PLUS"], ANNA.address, password, channel_binding=(kind, data))


def test_bound_to_the_certificate_that_the_client_saw() -> None:
    assert exchange(plus_client(HASH), "secret", HASH, plus=True)
    assert not exchange(plus_client(HASH, "wrong"), "secret", HASH, plus=True)


def test_somebody_in_between_who_shows_another_certificate() -> None:
    """RFC 5802 §6: the client has hashed another one than ours."""
    with pytest.raises(scram.ScramRefused):
        exchange(plus_client(hashlib.sha256(b"another").digest()), "secret", HASH, plus=True)


def test_a_binding_that_is_not_offered() -> None:
    for kind, end_point, plus in (("tls-unique", HASH, True), ("tls-server-end-point", b"", True), ("tls-server-end-point", HASH, False)):
        with pytest.raises(scram.ScramRefused):
            exchange(plus_client(HASH, kind=kind), "secret", end_point, plus)


def test_a_client_that_does_not_bind() -> None:
    """RFC 5802 §6: "n" cannot; with -PLUS it would have to."""
    assert exchange(ScramClient(["SCRAM-SHA-256"], ANNA.address, "secret"), "secret", HASH, plus=False)
    with pytest.raises(scram.ScramRefused):
        exchange(ScramClient(["SCRAM-SHA-256"], ANNA.address, "secret"), "secret", HASH, plus=True)


def test_a_client_from_which_plus_was_hidden() -> None:
    """RFC 5802 §6: "y" says that it could bind and that we cannot. We can: so somebody stands between."""
    first = f"y,,n={ANNA.address},r=abc".encode()
    assert scram.client_first(first).name == ANNA.address  # where it is not offered, it is right
    with pytest.raises(scram.ScramRefused, match="hidden"):
        scram.client_first(first, HASH)


def test_the_flag_cannot_be_changed_on_the_way() -> None:
    """RFC 5802 §5.1: the header that the client signed is the one that we heard."""
    client = plus_client(HASH)
    heard = client.get_client_first().replace("p=tls-server-end-point", "n", 1)
    first = scram.client_first(heard.encode(), HASH)
    challenge = scram.server_first(first, keys("secret"), b"n" * 18)
    client.set_server_first(challenge)
    with pytest.raises(scram.ScramRefused):
        scram.server_final(first, challenge, keys("secret"), client.get_client_final().encode())


@given(st.binary(max_size=120), st.booleans())
def test_any_bytes(data: bytes, plus: bool) -> None:
    try:
        scram.client_first(data, HASH, plus=plus)
    except scram.ScramRefused:
        return


def test_the_foreign_client_refuses_a_server_that_does_not_know_the_password() -> None:
    client = plus_client(HASH)
    first = scram.client_first(client.get_client_first().encode(), HASH, plus=True)
    challenge = scram.server_first(first, keys("secret"), b"n" * 18)
    client.set_server_first(challenge)
    client.get_client_final()
    with pytest.raises(ScramException):
        client.set_server_final("v=" + "A" * 43 + "=")
