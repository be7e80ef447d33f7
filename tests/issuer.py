"""An issuer of tokens for tests: keys, tokens that are really signed, and the two things that a mail site asks of it by HTTP."""

import asyncio
import base64
import json
from typing import Any, Literal
from urllib.parse import unquote_plus

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

NAME, AUDIENCE = "https://id.example", "mail.example"
CLIENT, SECRET = "angarium", "a secret: of ours"
LIFE_S = 300


class Issuer:
    """`keys`: by kid. `asked`: how often for its keys. `active`: what introspection says of a token. `hangs`: it answers nobody."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.keys: dict[str, tuple[str, Any]] = {}
        self.asked = 0
        self.active: dict[str, dict[str, Any]] = {}
        self.hangs = False
        self.status = 200
        self._runner: web.AppRunner | None = None
        self.add("one", "RS256")

    def add(self, kid: str, algorithm: Literal["RS256", "ES256", "EdDSA"]) -> None:
        made = {
            "RS256": lambda: rsa.generate_private_key(65537, 2048),
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
        }[algorithm]
        self.keys[kid] = algorithm, made()

    def token(self, email: str, kid: str | None = "one", *, signed_by: str = "", **claims: Any) -> str:
        """`claims`: beside or instead of the usual ones; None = left out."""
        usual = {"iss": NAME, "aud": AUDIENCE, "exp": int(self.now) + LIFE_S, "iat": int(self.now), "email": email}
        told = {name: value for name, value in (usual | claims).items() if value is not None}
        algorithm, key = self.keys[signed_by or kid or "one"]
        return jwt.encode(told, key, algorithm, headers={"kid": kid} if kid is not None else None)

    def jwks(self) -> bytes:
        kinds: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
        shown = [
            {**kinds[algorithm].to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}
            for kid, (algorithm, key) in self.keys.items()
        ]
        return json.dumps({"keys": shown}).encode()

    async def start(self) -> str:
        """Its URL."""
        app = web.Application()
        app.add_routes([web.get("/keys", self._keys), web.post("/introspect", self._introspect)])
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        return web.Response(body=self.jwks(), status=self.status, content_type="application/json")

    async def _introspect(self, request: web.Request) -> web.Response:
        if self.hangs:
            await asyncio.Event().wait()
        who = base64.b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        if [unquote_plus(part) for part in who.split(":")] != [CLIENT, SECRET]:
            return web.Response(status=401)
        form = await request.post()
        return web.json_response(self.active.get(str(form["token"]), {"active": False}), status=self.status)
