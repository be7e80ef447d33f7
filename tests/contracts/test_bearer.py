"""Tokens judged: signed ones against an issuer's keys, any by asking it; and when it is away."""

import base64
import datetime
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest

from cluster.domain.actor import Actor
from cluster.domain.refusal import Reason, Refusal
from node import config as site_config
from node.doctor import check_issuer
from node.init import Plan, make_site
from node.oauth import OAuthFile, OAuthSecrets, trust
from protocols import bearer
from storage import bearer as module
from storage.bearer import Issuer, IssuerAway, TokenRefused, Trust
from storage.sign_in import SignIn
from tests import issuer as issuing
from tests.live import Live

ANNA = "anna@example.org"


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
async def there() -> AsyncIterator[issuing.Issuer]:
    import time

    made = issuing.Issuer(time.time())  # noqa: TID251  # PyJWT looks at the machine's clock
    yield made
    await made.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def judged(trusted: Trust, clock: Clock) -> AsyncIterator[Issuer]:
    made = Issuer(trusted, clock)
    yield made
    await made.close()


@pytest.fixture
async def signed(there: issuing.Issuer, clock: Clock) -> AsyncIterator[Issuer]:
    url = await there.start()
    async for made in judged(Trust(issuer=issuing.NAME, audience=issuing.AUDIENCE, jwks=f"{url}/keys"), clock):
        yield made


@pytest.fixture
async def asked(there: issuing.Issuer, clock: Clock) -> AsyncIterator[Issuer]:
    url = await there.start()
    trusted = Trust(
        issuer=issuing.NAME,
        audience=issuing.AUDIENCE,
        introspection=f"{url}/introspect",
        client_id=issuing.CLIENT,
        client_secret=issuing.SECRET,
        claim="username",
        scope="mail",
    )
    async for made in judged(trusted, clock):
        yield made


async def test_a_good_token_names_its_owner(signed: Issuer, there: issuing.Issuer) -> None:
    there.add("two", "ES256")
    there.add("three", "EdDSA")
    for kid in there.keys:
        assert await signed.named(there.token(ANNA, kid)) == ANNA
    assert await signed.named(there.token(ANNA, aud=["another", issuing.AUDIENCE])) == ANNA
    assert there.asked == 1, "keys are kept"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": 1_000_000_000},
        {"exp": None},
        {"nbf": 4_000_000_000},
        {"aud": "another.example"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"email": None},
        {"email": ["anna@example.org"]},
        {"email_verified": False},
    ],
    ids=str,
)
async def test_a_token_that_is_not_good(signed: Issuer, there: issuing.Issuer, claims: dict[str, Any]) -> None:
    """RFC 8725 §3.8, §3.9; RFC 7519 §4.1."""
    with pytest.raises(TokenRefused):
        await signed.named(there.token(claims.pop("email", ANNA), **claims))


async def test_a_signature_that_is_none(signed: Issuer, there: issuing.Issuer) -> None:
    """RFC 8725 §2.1, §3.1: "none", a shared secret made of the public key, another's key, a signature cut off."""
    claims = jwt.decode(good := there.token(ANNA), options={"verify_signature": False})
    bad = [jwt.encode(claims, "", "none", headers={"kid": "one"})]
    head = base64.urlsafe_b64encode(json.dumps({"alg": "HS256", "kid": "one"}).encode()).rstrip(b"=").decode()
    bad += [f"{head}.{good.split('.')[1]}.AAAA", good.rpartition(".")[0] + ".", good[:-8] + "AAAAAAAA", "", "opaque", "a.b.c"]
    there.add("two", "ES256")
    bad.append(there.token(ANNA, "two", signed_by="one"))  # "alg" is of one key, the name of another
    for token in bad:
        with pytest.raises(TokenRefused) as refused:
            await signed.named(token)
        assert not token or token not in str(refused.value)


async def test_a_token_without_the_name_of_its_key(signed: Issuer, there: issuing.Issuer) -> None:
    assert await signed.named(there.token(ANNA, None)) == ANNA


async def test_a_new_key_is_looked_for_but_not_at_every_stranger(
    signed: Issuer, there: issuing.Issuer, clock: Clock
) -> None:
    assert await signed.named(there.token(ANNA)) == ANNA
    there.add("new", "ES256")
    with pytest.raises(TokenRefused):
        await signed.named(there.token(ANNA, "new"))
    assert there.asked == 1, "it was asked a moment ago"
    clock.at += module.ASK_PAUSE_S
    assert await signed.named(there.token(ANNA, "new")) == ANNA
    clock.at += module.ASK_PAUSE_S
    for _ in range(3):
        with pytest.raises(TokenRefused):
            await signed.named(there.token(ANNA, "unknown", signed_by="one"))
    assert there.asked == 3


async def test_a_key_that_the_issuer_has_withdrawn(signed: Issuer, there: issuing.Issuer, clock: Clock) -> None:
    token = there.token(ANNA)
    assert await signed.named(token) == ANNA
    del there.keys["one"]
    there.add("two", "RS256")
    clock.at += module.KEYS_LIVE_S
    with pytest.raises(TokenRefused):
        await signed.named(token)


async def test_the_issuer_is_away(
    signed: Issuer, there: issuing.Issuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With keys in hand it is not needed for a day; without, nobody is told that a token is wrong."""
    monkeypatch.setattr(module, "WAIT_S_MAX", 0.2)
    there.hangs = True
    with pytest.raises(IssuerAway, match="does not answer"):
        await signed.named(there.token(ANNA))
    with pytest.raises(IssuerAway):  # at once: it was asked a moment ago
        await signed.named(there.token(ANNA))
    assert there.asked == 1
    there.hangs = False
    clock.at += module.ASK_PAUSE_S
    assert await signed.named(there.token(ANNA)) == ANNA
    there.status = 503
    clock.at += module.KEYS_LIVE_S
    assert await signed.named(there.token(ANNA)) == ANNA
    with pytest.raises(IssuerAway, match="503"):
        await signed.named(there.token(ANNA, "unknown", signed_by="one"))
    clock.at += module.KEYS_STALE_S_MAX
    with pytest.raises(IssuerAway):
        await signed.named(there.token(ANNA))


async def test_keys_from_a_file(there: issuing.Issuer, tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "keys.json"
    async for made in judged(Trust(issuer=issuing.NAME, audience=issuing.AUDIENCE, jwks=file), clock):
        with pytest.raises(IssuerAway):
            await made.named(there.token(ANNA))
        clock.at += module.ASK_PAUSE_S
        file.write_bytes(b"[]")
        with pytest.raises(IssuerAway):
            await made.named(there.token(ANNA))
        clock.at += module.ASK_PAUSE_S
        file.write_bytes(there.jwks())
        assert await made.named(there.token(ANNA)) == ANNA


async def test_introspection(asked: Issuer, there: issuing.Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 7662 §2.2."""
    good = {"active": True, "username": ANNA, "scope": "openid mail"}
    there.active = {
        "good": good,
        "mine": good | {"aud": issuing.AUDIENCE, "iss": issuing.NAME},
        "narrow": good | {"scope": "openid"},
        "other": good | {"aud": ["another"]},
        "foreign": good | {"iss": "https://evil.example"},
        "odd": good | {"active": "true"},
        "nobody": {"active": True, "scope": "mail"},
    }
    assert [await asked.named(token) for token in ("good", "mine")] == [ANNA, ANNA]
    for token in ("other", "foreign", "odd", "nobody", "unknown"):
        with pytest.raises(TokenRefused) as refused:
            await asked.named(token)
        assert not refused.value.scope
    with pytest.raises(TokenRefused) as refused:
        await asked.named("narrow")
    assert refused.value.scope
    there.status = 500
    with pytest.raises(IssuerAway, match="500"):
        await asked.named("good")
    monkeypatch.setattr(module, "WAIT_S_MAX", 0.2)
    there.hangs = True
    stale = Issuer(asked._trust, Clock())
    with pytest.raises(IssuerAway, match="does not answer"):
        await stale.named("good")
    await stale.close()


# -- signing in at a site -------------------------------------------------------------------------------------------------


async def test_signing_in_by_token(live_site: Live, signed: Issuer, there: issuing.Issuer) -> None:
    anna, ben = await live_site.person("anna"), await live_site.person("ben")
    parts = live_site.parts
    sign_in = SignIn(parts.directory, parts.credentials, parts.throttle, signed)
    actor = Actor("", address="192.0.2.77", protocol="imap", session="x")
    for asked in (anna.address, "", anna.address.upper()):
        found = await sign_in.by_token(asked, there.token(anna.address), actor, throttled=True)
        assert not isinstance(found, Refusal) and (found.id, found.credential) == (anna.id, "token")
    for asked, token in [
        (ben.address, there.token(anna.address)),
        (anna.address, there.token("nobody@example.org")),
        (anna.address, "nonsense"),
        ("no address", there.token(anna.address)),
    ]:
        refused = await sign_in.by_token(asked, token, actor, throttled=True)
        assert isinstance(refused, Refusal) and refused.reason is Reason.WRONG_PASSWORD, asked
    for _ in range(parts.config.limits.sign_in_failures_max):
        await sign_in.by_token(ben.address, "nonsense", actor, throttled=True)
    slow = await sign_in.by_token(ben.address, there.token(ben.address), actor, throttled=True)
    assert isinstance(slow, Refusal) and slow.reason is Reason.THROTTLED


async def test_a_stranger_slows_down_nobody_else(live_site: Live, signed: Issuer, there: issuing.Issuer) -> None:
    """Who leaves it to the token who they are has no name to be counted by before it is judged."""
    anna = await live_site.person("anna")
    parts = live_site.parts
    sign_in = SignIn(parts.directory, parts.credentials, parts.throttle, signed)
    stranger = Actor("", address="192.0.2.79", protocol="imap", session="x")
    for _ in range(parts.config.limits.sign_in_failures_max + 1):
        refused = await sign_in.by_token("", "nonsense", stranger, throttled=True)
    assert isinstance(refused, Refusal) and refused.reason is Reason.THROTTLED
    elsewhere = Actor("", address="192.0.2.80", protocol="imap", session="x")
    found = await sign_in.by_token("", there.token(anna.address), elsewhere, throttled=True)
    assert not isinstance(found, Refusal) and found.id == anna.id


async def test_no_token_in_a_log(
    live_site: Live, signed: Issuer, there: issuing.Issuer, capsys: pytest.CaptureFixture[str]
) -> None:
    sign_in = SignIn(live_site.parts.directory, live_site.parts.credentials, live_site.parts.throttle, signed)
    actor = Actor("", address="192.0.2.78", protocol="imap", session="x")
    tokens = [there.token("nobody@example.org"), there.token(ANNA, exp=1), there.token(ANNA, "unknown", signed_by="one")]
    for token in tokens:
        assert isinstance(await sign_in.by_token(ANNA, token, actor, throttled=False), Refusal)
    shown = "".join(capsys.readouterr())
    assert "not taken" in shown and not any(piece in shown for token in tokens for piece in token.split("."))
    assert "secret" not in repr(bearer.xoauth2(b"user=a\x01auth=Bearer secret\x01\x01"))
    assert "hidden" not in repr(Trust(issuer="x", audience="y", client_secret="hidden"))


# -- configured -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "secret", "complaint"),
    [
        (OAuthFile("https://id.example"), "", "jwks or introspection"),
        (OAuthFile("https://id.example", jwks="https://id.example/keys"), "", "needs audience"),
        (OAuthFile("https://id.example", "a", jwks="http://id.example/keys"), "", "https://"),
        (OAuthFile("https://id.example", "a", jwks="ftp://127.0.0.1/keys"), "", "https://"),
        (OAuthFile("https://id.example", introspection="https://id.example/i"), "", "client_id"),
        (OAuthFile("https://id.example", introspection="i", client_id="a"), "s", "must be a URL"),
        (OAuthFile("https://id.example", "a", jwks="keys.json", ca="none.pem"), "", "is not there"),
        (OAuthFile("", "a", jwks="keys.json"), "", "must not be empty"),
    ],
)
def test_what_is_configured_wrongly(tmp_path: Path, file: OAuthFile, secret: str, complaint: str) -> None:
    with pytest.raises(site_config.ConfigRefused, match=complaint):
        trust(tmp_path / "angarium.toml", file, OAuthSecrets(secret))


def test_what_is_configured(tmp_path: Path) -> None:
    path = tmp_path / "angarium.toml"
    made = trust(path, OAuthFile("https://id.example/", "mail", jwks="keys.json", scope="mail"), OAuthSecrets())
    assert made is not None and made.jwks == tmp_path / "keys.json"
    assert Issuer(made, Clock()).taken.discovery == "https://id.example/.well-known/openid-configuration"
    near = trust(path, OAuthFile("x", jwks="http://[::1]:8080/keys", audience="m"), OAuthSecrets())
    assert near is not None and near.jwks == "http://[::1]:8080/keys"
    assert trust(path, None, OAuthSecrets()) is None


async def test_whether_the_issuer_answers_as_it_should(
    signed: Issuer, there: issuing.Issuer
) -> None:
    await signed.reached()
    there.keys.clear()
    with pytest.raises(IssuerAway, match="no keys"):
        await signed.reached()
    there.status = 404
    with pytest.raises(IssuerAway, match="404"):
        await signed.reached()


async def test_an_issuer_that_calls_everything_good(asked: Issuer, there: issuing.Issuer) -> None:
    await asked.reached()
    there.active = {"a token that nobody has issued": {"active": True}}
    with pytest.raises(IssuerAway, match="nobody has issued"):
        await asked.reached()


def test_the_doctor_looks_at_it(there: issuing.Issuer, tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    config = make_site(Plan(tmp_path / "site", "north", "example.org", ""), now)
    assert check_issuer(config, now) == []
    keys = tmp_path / "keys.json"
    trusting = msgspec.structs.replace(config, oauth=Trust(issuer=issuing.NAME, audience="mail", jwks=keys))
    (finding,) = check_issuer(trusting, now)
    assert finding.level == "error" and str(keys) in finding.text and finding.remedy
    keys.write_bytes(there.jwks())
    (finding,) = check_issuer(trusting, now)
    assert finding.level == "ok"
