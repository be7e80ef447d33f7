"""Passwords kept, checked, remembered and forgotten; guessing slowed down."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import AsyncIterator, Sequence

import argon2
import pytest
from argon2.exceptions import VerifyMismatchError
from scramp import ScramClient, ScramMechanism

from cluster.domain.directory.events import Verifier
from cluster.domain.refusal import Reason
from storage import credentials as module
from storage.credentials import (
    NOBODY,
    PASSWORD_COST,
    REMEMBERED_S_MAX,
    Credentials,
    CredentialsBusy,
    Remembered,
    as_generated,
    prepare,
    scram_parts,
    weakness,
)
from storage.throttle import FAILURES_FREE_MAX, WAIT_S_MAX, SignIns, Throttle, network_of

GOOD = "correct horse battery"


class SetWorld:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def new_id(self) -> int:
        return secrets.randbits(62) + 1

    def entropy(self, size: int) -> bytes:
        return secrets.token_bytes(size)


@pytest.fixture
def world() -> SetWorld:
    return SetWorld()


@pytest.fixture
async def kept(world: SetWorld) -> AsyncIterator[Credentials]:
    made = Credentials(world, b"the site's own")
    yield made
    made.close()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every password that is really checked, from now on."""
    checks: list[str] = []
    real = module.fitting

    def fitting(verifiers: Sequence[tuple[str, Verifier]], password: str) -> str | None:
        checks.append(password)
        return real(verifiers, password)

    monkeypatch.setattr(module, "fitting", fitting)
    return checks


async def test_only_the_password_fits(kept: Credentials) -> None:
    verifier = await kept.make(GOOD)
    verifiers = [("password", verifier)]
    assert await kept.verify(verifiers, 1, GOOD) == "password"
    for wrong in ("", "correct horse batterY", GOOD + " ", "x" * 2000, "a\0b", "\ud800"):
        assert await kept.verify(verifiers, 1, wrong) is None, wrong
    assert (await kept.make(GOOD)).argon2 != verifier.argon2
    assert argon2.extract_parameters(verifier.argon2).memory_cost == 19 * 1024


async def test_what_is_kept_for_scram_serves_a_foreign_client(kept: Credentials) -> None:
    verifier = await kept.make(GOOD)
    parts = scram_parts(verifier.scram_sha_256)
    assert parts is not None and parts.iterations == 10_000
    # RFC 5802 §3, by a client that knows nothing of us.
    client = ScramClient(["SCRAM-SHA-256"], "anna", GOOD)
    server = ScramMechanism("SCRAM-SHA-256").make_server(
        lambda _: (parts.salt, parts.stored_key, parts.server_key, parts.iterations)
    )
    server.set_client_first(client.get_client_first())
    client.set_server_first(server.get_server_first())
    server.set_client_final(client.get_client_final())
    client.set_server_final(server.get_server_final())  # raises if either side is not convinced


@pytest.mark.parametrize("kept_text", ["", "SCRAM-SHA-1$1:AA==$AA==:AA==", "SCRAM-SHA-256$x:AA==$AA==:AA==", "SCRAM-SHA-256$1:!$AA==:AA=="])
def test_other_forms_are_not_taken_for_scram(kept_text: str) -> None:
    assert scram_parts(kept_text) is None


async def test_an_unknown_name_costs_as_much_and_fits_nothing(kept: Credentials) -> None:
    assert await kept.verify([], 0, GOOD) is None
    # What is checked in its stead has the same costs, and is a hash that can really be checked.
    assert not PASSWORD_COST.check_needs_rehash(NOBODY)
    with pytest.raises(VerifyMismatchError):
        PASSWORD_COST.verify(NOBODY, GOOD)


async def test_even_a_password_that_fits_nobody_signs_nobody_in(kept: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NOBODY", PASSWORD_COST.hash(GOOD))
    assert await kept.verify([], 0, GOOD) is None


async def test_made_up_keys_are_the_same_each_time_and_at_each_worker(kept: Credentials, world: SetWorld) -> None:
    other, stranger = Credentials(world, b"the site's own"), Credentials(world, b"another site's")
    assert kept.made_up("x@example.org") == other.made_up("x@example.org") != stranger.made_up("x@example.org")
    assert kept.made_up("x@example.org").salt != kept.made_up("y@example.org").salt
    for one in (other, stranger):
        one.close()


async def test_app_passwords_are_found_however_they_are_typed(kept: Credentials) -> None:
    password, other = kept.generate(), kept.generate()
    verifiers = [
        ("password", await kept.make(GOOD)),
        ("phone", await kept.make_generated(other)),
        ("laptop", await kept.make_generated(password)),
    ]
    for typed in (password, password.upper(), password.replace("-", ""), password.replace("-", " ")):
        assert await kept.verify(verifiers, 1, typed) == "laptop"
    assert await kept.verify(verifiers, 1, other) == "phone"
    assert await kept.verify(verifiers[:2], 1, password) is None, "revoked, though remembered"
    assert await kept.verify(verifiers, 1, kept.generate()) is None


async def test_a_chosen_password_may_look_like_a_generated_one(kept: Credentials) -> None:
    verifiers = [("password", await kept.make("abcdefghjkmnpqrs")), ("phone", await kept.make_generated(kept.generate()))]
    assert await kept.verify(verifiers, 1, "abcdefghjkmnpqrs") == "password"


def test_generated_passwords_have_their_form_and_do_not_repeat(world: SetWorld) -> None:
    made = Credentials(world, b"")
    passwords = {made.generate() for _ in range(500)}
    made.close()
    assert len(passwords) == 500 and all(as_generated(password) == password for password in passwords)
    letters = "".join(passwords).replace("-", "")
    counts = [letters.count(letter) for letter in module.LETTERS]
    assert sum(counts) == len(letters) and min(counts) > 0.6 * len(letters) / len(module.LETTERS)


async def test_a_success_is_remembered_until_the_verifier_changes(kept: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = counted(monkeypatch)
    first, second = await kept.make(GOOD), await kept.make("another long one")
    for _ in range(3):
        assert await kept.verify([("password", first)], 1, GOOD) == "password"
    assert len(checks) == 1
    assert await kept.verify([("password", second)], 1, GOOD) is None
    assert await kept.verify([("password", first)], 2, GOOD) == "password", "remembered for one account only"
    assert len(checks) == 3
    kept.forget(1)
    assert await kept.verify([("password", first)], 1, GOOD) == "password" and len(checks) == 4
    for _ in range(2):
        assert await kept.verify([("password", first)], 1, "a wrong one") is None
    assert len(checks) == 6, "failures are not remembered"


async def test_many_connections_of_one_device_cost_one_check(kept: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = counted(monkeypatch)
    verifiers = [("password", await kept.make(GOOD))]
    outcomes = await asyncio.gather(*(kept.verify(verifiers, 1, GOOD) for _ in range(20)))
    assert outcomes == ["password"] * 20 and len(checks) == 1


async def test_one_that_gives_up_waiting_takes_nothing_from_the_others(kept: Credentials) -> None:
    verifiers = [("password", await kept.make(GOOD))]
    one = asyncio.create_task(kept.verify(verifiers, 1, GOOD))
    other = asyncio.create_task(kept.verify(verifiers, 1, GOOD))
    await asyncio.sleep(0)
    one.cancel()
    assert await other == "password"


async def test_no_more_wait_than_is_any_use(kept: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 2)
    outcomes = await asyncio.gather(*(kept.verify([], 0, f"guess {n}") for n in range(4)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), CredentialsBusy, CredentialsBusy]
    assert await kept.verify([], 0, "a later one") is None


def test_memory_of_successes_is_bounded_in_time_and_number(world: SetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_MAX", 3)
    remembered = Remembered(world.monotonic, b"key")
    keys = [bytes([n]) for n in range(4)]
    for account, key in enumerate(keys):
        remembered.add(account, key)
    assert [remembered.has(key) for key in keys] == [False, True, True, True]
    remembered.forget(2)
    assert [remembered.has(key) for key in keys] == [False, True, False, True]
    world.at += REMEMBERED_S_MAX
    assert not any(remembered.has(key) for key in keys)


def test_one_password_in_any_script_is_one_password() -> None:
    # RFC 4013 §3: I<U+00AD>X is IX; the Roman numeral nine is IX; composed and decomposed are the same.
    assert prepare("I\u00adX") == prepare("\u2168") == "IX"
    assert prepare("cafe\u0301 au lait") == prepare("caf\u00e9 au lait")
    assert prepare("\U0001fae0 melting away") == "\U0001fae0 melting away"  # newer than SASLprep, kept as it is


@pytest.mark.parametrize("bad", ["", "seven77", "anna@example.org", "ANNA@example.org", "zzzzzzzzzz", "nul\0nul\0nul", "x" * 1025])
def test_weak_passwords(bad: str) -> None:
    refusal = weakness(bad, "anna@example.org")
    assert refusal is not None and refusal.reason is Reason.WEAK_PASSWORD and refusal.text
    assert weakness(GOOD, "anna@example.org") is None


# -- throttling ---------------------------------------------------------------------------------------------------------


def test_a_few_failures_are_free_then_each_doubles_the_wait(world: SetWorld) -> None:
    throttle = Throttle(world.monotonic, free=3)
    waits = []
    for _ in range(14):
        throttle.failed("a")
        waits.append(throttle.wait_s("a"))
    assert waits[:6] == [0, 0, 2, 4, 8, 16] and waits[-1] == WAIT_S_MAX
    assert throttle.wait_s("b") == 0
    world.at += WAIT_S_MAX
    assert throttle.wait_s("a") == 0
    throttle.failed("a")
    assert throttle.wait_s("a") == WAIT_S_MAX, "not forgotten as soon as it may try again"


def test_quiet_makes_forget_and_success_resets(world: SetWorld) -> None:
    throttle = Throttle(world.monotonic, free=1, window_s=300)
    throttle.failed("a")
    throttle.failed("a")
    world.at += throttle.wait_s("a") + 300
    throttle.failed("a")
    assert throttle.wait_s("a") == 2
    throttle.succeeded("a")
    assert throttle.wait_s("a") == 0


def test_what_it_remembers_is_bounded(world: SetWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.throttle.KEYS_MAX", 10)
    throttle = Throttle(world.monotonic, free=1)
    for key in range(20):
        throttle.failed(key)
    assert [throttle.wait_s(key) > 0 for key in range(20)] == [False] * 10 + [True] * 10


def test_an_address_that_guesses_at_many_accounts_waits(world: SetWorld) -> None:
    sign_ins = SignIns(world.monotonic)
    for number in range(FAILURES_FREE_MAX):
        sign_ins.failed("2001:db8::1", f"p{number}@example.org")
    assert sign_ins.wait_s("2001:db8::ffff", "new@example.org") > 0, "the same /64"
    assert sign_ins.wait_s("2001:db8:0:1::1", "new@example.org") == 0
    sign_ins.succeeded("2001:db8::1", "own@example.org")
    assert sign_ins.wait_s("2001:db8::1", "new@example.org") > 0, "an own account does not buy more guesses"


def test_an_account_that_many_guess_at_waits_but_not_for_its_owner(world: SetWorld) -> None:
    sign_ins = SignIns(world.monotonic)
    sign_ins.succeeded("192.0.2.1", "anna@example.org")
    for number in range(FAILURES_FREE_MAX):
        sign_ins.failed(f"198.51.100.{number}", "anna@example.org")
    assert sign_ins.wait_s("203.0.113.9", "anna@example.org") > 0
    assert sign_ins.wait_s("192.0.2.1", "anna@example.org") == 0
    assert sign_ins.wait_s("203.0.113.9", "ben@example.org") == 0


def test_named_networks_are_not_slowed_down(world: SetWorld) -> None:
    sign_ins = SignIns(world.monotonic, (ipaddress.ip_network("127.0.0.0/8"),), free=1)
    for _ in range(5):
        sign_ins.failed("127.0.0.1", "anna@example.org")
    assert sign_ins.wait_s("127.0.0.1", "anna@example.org") == 0
    assert sign_ins.wait_s("::ffff:127.0.0.9", "anna@example.org") == 0
    assert sign_ins.wait_s("192.0.2.1", "anna@example.org") == 0, "nor do they slow down others"


def test_networks() -> None:
    assert network_of("2001:db8:1:2:3::9%eth0") == "2001:db8:1:2::/64"
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") == "192.0.2.1"
    assert network_of("unix") == "unix"


def test_the_stored_form_is_that_of_rfc_5803() -> None:
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
    # RFC 7677 §3's example: the client's proof there must follow from what would be kept.
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    text = f"SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==${base64.b64encode(stored).decode()}:AA=="
    parts = scram_parts(text)
    assert parts is not None
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    message = f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}".encode()
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.digest(parts.stored_key, message, "sha256")
    client_key = bytes(one ^ other for one, other in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == parts.stored_key
