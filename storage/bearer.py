"""Tokens of an issuer outside (OAuth 2.0, RFC 6750): signed ones (JWT, RFC 7519 and RFC 9068) judged by the issuer's keys, and any by
asking it (introspection, RFC 7662). Where both are configured both must agree.

PyJWT checks the signatures: there is nothing in that to do better, and much to do wrong. No token is ever written into a log.
"""

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import aiohttp
import jwt
import msgspec

from storage.shapes import TokensTaken

# Signatures of which only the issuer has the secret. "none", and those of a shared secret, are not among them (RFC 8725 §3.1, §3.2).
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_S = 30  # between the issuer's clock and ours
KEYS_LIVE_S = 3600.0
KEYS_STALE_S_MAX = 86_400.0  # keys go on counting for so long while the issuer is away
ASK_PAUSE_S = 10.0  # between two looks for a key that is not known
WAIT_S_MAX = 5.0
ANSWER_BYTES_MAX = 256 << 10
KEYS_MAX = 100


class TokenRefused(Exception):
    """The token is not good; the text says why without showing it. `scope`: good, but for something else."""

    def __init__(self, why: str, *, scope: bool = False) -> None:
        super().__init__(why)
        self.scope = scope


class IssuerAway(Exception):
    """It is not known whether the token is good."""


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """Whose tokens are taken. `jwks`: URL or file of its keys, None = signatures are not looked at. `introspection`: a URL, empty = it
    is not asked; `client_id`, `client_secret`: ours there. `claim`: names the account by its address. `scope`: what the token must
    have, empty = nothing in particular. `ca`: PEM file, None = the machine's authorities."""

    issuer: str
    audience: str
    jwks: str | Path | None = None
    introspection: str = ""
    client_id: str = ""
    client_secret: str = ""
    claim: str = "email"
    scope: str = ""
    ca: Path | None = None

    def __repr__(self) -> str:
        return f"Trust({self.issuer!r}, …)"


class Issuer:
    """One for each process; `close` it at the end."""

    def __init__(self, trust: Trust, monotonic: Callable[[], float]) -> None:
        self._trust = trust
        self._http: aiohttp.ClientSession | None = None
        self._keys = Keys(self._read_keys, monotonic)
        discovery = f"{trust.issuer.rstrip('/')}/.well-known/openid-configuration" if trust.issuer.startswith("https://") else ""
        self.taken = TokensTaken(trust.scope, discovery)

    async def named(self, token: str) -> str:
        """The address that a good token names. Raises TokenRefused, IssuerAway."""
        if not token:
            raise TokenRefused("there is none")
        claims: dict[str, Any] = {}
        if self._trust.jwks is not None:
            claims |= await self._signed(token)
        if self._trust.introspection:
            claims |= await self._asked(token)
        granted = claims.get("scope", claims.get("scp", ""))  # RFC 8693 §4.2; Microsoft's name for it
        scopes = granted.split() if isinstance(granted, str) else granted if isinstance(granted, list) else []
        if not set(self._trust.scope.split()) <= {str(each) for each in scopes}:
            raise TokenRefused("it lacks the scope", scope=True)
        name = claims.get(self._trust.claim)
        if not isinstance(name, str) or not name:
            raise TokenRefused(f"it has no claim {self._trust.claim}")
        if self._trust.claim == "email" and claims.get("email_verified", True) is not True:
            raise TokenRefused("its issuer has not verified the address")
        return name

    async def reached(self) -> None:
        """Returns where it answers as it should. Raises IssuerAway."""
        if self._trust.jwks is not None:
            await self._keys.look()
        if self._trust.introspection:
            try:
                await self._asked("a token that nobody has issued")
            except TokenRefused:
                return
            raise IssuerAway(f"{self._trust.introspection} calls a token good that nobody has issued")

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    # -- signed ones --------------------------------------------------------------------------------------------------
    async def _signed(self, token: str) -> dict[str, Any]:
        """RFC 8725 §3: algorithm, key, issuer, audience and time, each of them."""
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if algorithm not in ALGORITHMS:
                raise TokenRefused("signed in a way that is not taken")
            key = await self._keys.key(header.get("kid"), algorithm)
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._trust.issuer,
                audience=self._trust.audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            # Not its text, which may show pieces of the token.
            raise TokenRefused(type(error).__name__) from None

    async def _read_keys(self) -> bytes:
        where = self._trust.jwks
        if isinstance(where, Path):
            try:
                return await asyncio.to_thread(where.read_bytes)
            except OSError as error:
                raise IssuerAway(f"{where}: {error}") from None
        return await self._answer("GET", str(where))

    # -- asking -------------------------------------------------------------------------------------------------------
    async def _asked(self, token: str) -> dict[str, Any]:
        """RFC 7662 §2."""
        trust = self._trust
        # RFC 6749 §2.3.1: both are encoded as in a form before they are joined
        who = f"{quote_plus(trust.client_id)}:{quote_plus(trust.client_secret)}".encode()
        headers = {"Authorization": f"Basic {base64.b64encode(who).decode()}"}
        said = await self._answer("POST", trust.introspection, {"token": token, "token_type_hint": "access_token"}, headers)
        claims = _object(said)
        if claims.get("active") is not True:
            raise TokenRefused("its issuer says that it is not active")
        if claims.get("iss", trust.issuer) != trust.issuer:
            raise TokenRefused("of another issuer")
        audience = claims.get("aud", trust.audience)
        if trust.audience and trust.audience not in (audience if isinstance(audience, list) else [audience]):
            raise TokenRefused("for another audience")
        return claims

    async def _answer(
        self, method: str, url: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        try:
            if self._http is None:
                context = ssl.create_default_context(cafile=self._trust.ca)
                patience = aiohttp.ClientTimeout(total=WAIT_S_MAX)
                self._http = aiohttp.ClientSession(timeout=patience, connector=aiohttp.TCPConnector(ssl=context))
            # A redirect would carry the token to where nobody has said that it may go.
            async with self._http.request(method, url, data=form, headers=headers, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise IssuerAway(f"{url} answers {answer.status}")
                said = bytearray()
                async for piece in answer.content.iter_any():
                    said += piece
                    if len(said) > ANSWER_BYTES_MAX:
                        raise IssuerAway(f"{url} answers without end")
                return bytes(said)
        except TimeoutError:
            raise IssuerAway(f"{url} does not answer within {WAIT_S_MAX:.0f} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise IssuerAway(f"{url}: {type(error).__name__}") from None


class Keys:
    """The issuer's (JWKS, RFC 7517), looked at anew every KEYS_LIVE_S, and when a token names one that is not known."""

    def __init__(self, read: Callable[[], Awaitable[bytes]], monotonic: Callable[[], float]) -> None:
        self._read = read
        self._monotonic = monotonic
        self._known: dict[str, dict[str, Any]] = {}
        self._made: dict[tuple[str, str], jwt.PyJWK] = {}
        self._read_at = self._asked_at = float("-inf")
        self._away = ""
        self._reading: asyncio.Task[None] | None = None

    async def key(self, kid: object, algorithm: str) -> jwt.PyJWK:
        """Raises TokenRefused, IssuerAway, and PyJWTError where the key is of another kind."""
        now = self._monotonic()
        if (not self._has(kid) or now - self._read_at >= KEYS_LIVE_S) and now - self._asked_at >= ASK_PAUSE_S:
            await self._read_once()
        if self._away and (not self._has(kid) or self._monotonic() - self._read_at >= KEYS_STALE_S_MAX):
            raise IssuerAway(self._away)
        if not self._has(kid):
            raise TokenRefused("signed by a key that its issuer does not show")
        name = kid if isinstance(kid, str) else next(iter(self._known))
        kept = self._known[name]
        if kept.get("use", "sig") != "sig" or kept.get("alg", algorithm) != algorithm:
            raise TokenRefused("signed by a key that is not for this")
        if (name, algorithm) not in self._made:
            self._made[name, algorithm] = jwt.PyJWK(kept, algorithm)
        return self._made[name, algorithm]

    async def look(self) -> None:
        """Raises IssuerAway."""
        await self._read_once()
        if self._away or not self._known:
            raise IssuerAway(self._away or "it shows no keys")

    def _has(self, kid: object) -> bool:
        """A token without the name of its key has the only one."""
        return len(self._known) == 1 if kid is None else kid in self._known

    async def _read_once(self) -> None:
        """All who wait for the keys wait for one answer."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read_anew())
        await asyncio.shield(self._reading)

    async def _read_anew(self) -> None:
        try:
            found = _object(await self._read()).get("keys")
            if not isinstance(found, list) or len(found) > KEYS_MAX or not all(isinstance(key, dict) for key in found):
                raise IssuerAway("what should be its keys is something else")
            self._known = {str(key.get("kid", "")): key for key in found}
            self._made, self._away, self._read_at = {}, "", self._monotonic()
        except IssuerAway as away:
            self._away = str(away)
        finally:
            self._asked_at, self._reading = self._monotonic(), None


def _object(text: bytes) -> dict[str, Any]:
    """Raises IssuerAway."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise IssuerAway("it answers something that is no JSON object")
    return found
