"""Signing in by SASL (RFC 4422) on a wire of lines, for every language that does: base64 both ways, and the mechanisms. PLAIN (RFC 4616),
LOGIN (draft-murchison-sasl-login), SCRAM-SHA-256 and -PLUS (RFC 7677); where the site takes tokens OAUTHBEARER (RFC 7628) and XOAUTH2.
"""

import binascii
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from cluster.domain.actor import Actor
from cluster.domain.refusal import Reason, Refusal
from protocols import bearer, scram
from protocols.port import Account, Site, TokensTaken

NONCE_BYTES = 18
WRONG = Refusal(Reason.WRONG_PASSWORD)
# What a token can be wrong in; other refusals have nothing to do with it.
STATUS = {Reason.WRONG_PASSWORD: bearer.INVALID, Reason.NOT_PERMITTED: bearer.SCOPE}


class Cancelled(Exception):
    """The client sent "*" (RFC 9051 §6.2.2, RFC 5034 §4, RFC 4954 §4)."""


class Malformed(Exception):
    """What came is no message of the mechanism, or no base64; the text says which."""


class ForAnother(Exception):
    """Nobody acts for others here (RFC 4422 §3.4.1)."""


class NeedsTls(Exception):
    """A token is shown under TLS only (RFC 7628 §4)."""


class Channel(NamedTuple):
    """Of one conversation. `ask`: sends a challenge in base64, gives the client's line. `throttled`: guesses are slowed down.
    `end_point`: what SCRAM binds to (RFC 5929 §4), empty = nothing."""

    site: Site
    actor: Actor
    ask: Callable[[str], Awaitable[bytes]]
    secure: bool
    throttled: bool = True
    end_point: bytes = b""


Mechanism = Callable[[Channel, bytes | None], Awaitable[Account | Refusal]]


def decoded(line: bytes) -> bytes:
    """Raises Cancelled, Malformed."""
    if line == b"*":
        raise Cancelled("Cancelled.")
    if line == b"=":
        return b""  # an empty initial response (RFC 4959 §3, RFC 5034 §4, RFC 4954 §4)
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error as error:
        raise Malformed("That is no base64.") from error


async def answer(ask: Callable[[str], Awaitable[bytes]], challenge: str) -> bytes:
    """What the client says to a challenge. Raises Cancelled, Malformed."""
    return decoded(await ask(binascii.b2a_base64(challenge.encode(), newline=False).decode()))


def mechanism(site: Site, name: str) -> Mechanism | None:
    """The one of this name, in capitals, that the site knows: (channel, initial response, decoded) → who it is. What it gives is
    already counted and noted. Raises Cancelled, Malformed, ForAnother, NeedsTls."""
    if name in OF_TOKENS and site.tokens is None:
        return None
    return (MECHANISMS | OF_TOKENS).get(name)


def offered(site: Site, *, secure: bool, end_point: bytes = b"") -> tuple[str, ...]:
    """What is announced, of a wire on which passwords are taken."""
    bound = ("SCRAM-SHA-256-PLUS",) if end_point else ()  # RFC 5802 §6: only where it can be bound
    return ("PLAIN", "SCRAM-SHA-256", *bound, *(OF_TOKENS if secure and site.tokens is not None else ()))


async def by_password(channel: Channel, name: bytes, password: bytes) -> Account | Refusal:
    try:
        address, secret = name.decode("utf-8"), password.decode("utf-8")
    except UnicodeDecodeError:
        return WRONG
    return await channel.site.sign_in(address, secret, channel.actor, throttled=channel.throttled)


async def login(channel: Channel, initial: bytes | None) -> Account | Refusal:
    """As `mechanism` gives them. LOGIN is offered where clients know nothing else."""
    name = await answer(channel.ask, "Username:") if initial is None else initial
    return await by_password(channel, name, await answer(channel.ask, "Password:"))


def external(introducer: str) -> Mechanism:
    """EXTERNAL (RFC 4422 §A), at the door for sites: the certificate says which site it is, and the identity to act as is a person
    who signed in there."""
    return partial(_external, introducer)


async def _external(introducer: str, channel: Channel, initial: bytes | None) -> Account | Refusal:
    message = await answer(channel.ask, "") if initial is None else initial
    try:
        address = message.decode("utf-8")
    except UnicodeDecodeError:
        address = ""
    if not address:
        raise ForAnother  # A site has no mail of its own.
    return await channel.site.introduced(address, introducer, channel.actor)


async def _plain(channel: Channel, initial: bytes | None) -> Account | Refusal:
    parts = (await answer(channel.ask, "") if initial is None else initial).split(b"\0")
    if len(parts) != 3:
        raise Malformed("That is no PLAIN.")  # RFC 4616 §2: authzid NUL authcid NUL passwd
    authorize, name, password = parts
    if authorize not in (b"", name):
        raise ForAnother
    return await by_password(channel, name, password)


async def _scram(channel: Channel, initial: bytes | None, *, plus: bool = False) -> Account | Refusal:
    site = channel.site
    try:
        message = await answer(channel.ask, "") if initial is None else initial
        first = scram.client_first(message, channel.end_point, plus=plus)
        if first.authorize not in ("", first.name):
            raise ForAnother
        keys = await site.scram_keys(first.name)
        if isinstance(keys, Refusal):
            return keys
        challenge = scram.server_first(first, keys, site.world.entropy(NONCE_BYTES))
        final = scram.server_final(first, challenge, keys, await answer(channel.ask, challenge))
    except scram.ScramRefused as error:
        raise Malformed(f"That is no SCRAM: {error}.") from error
    # Told also where it failed, so that it counts.
    found = await site.signed_in(keys.account if final is not None else None, channel.actor, first.name)
    if final is None or isinstance(found, Refusal):
        return found if isinstance(found, Refusal) else WRONG
    # RFC 5802 §3: the client checks the server's signature. RFC 5034 §4, RFC 4954 §4: what comes with success goes as one more
    # challenge, which it answers with nothing.
    await answer(channel.ask, final)
    return found


async def _scram_plus(channel: Channel, initial: bytes | None) -> Account | Refusal:
    return await _scram(channel, initial, plus=True)


async def _oauthbearer(channel: Channel, initial: bytes | None) -> Account | Refusal:
    return await _by_token(channel, initial, bearer.oauthbearer, bearer.challenge)


async def _xoauth2(channel: Channel, initial: bytes | None) -> Account | Refusal:
    return await _by_token(channel, initial, bearer.xoauth2, bearer.old_challenge)


async def _by_token(
    channel: Channel,
    initial: bytes | None,
    read: Callable[[bytes], bearer.Given],
    told: Callable[[TokensTaken, str], str],
) -> Account | Refusal:
    taken = channel.site.tokens
    if not channel.secure or taken is None:
        raise NeedsTls
    try:
        given = read(await answer(channel.ask, "") if initial is None else initial)
    except bearer.BearerRefused as error:
        raise Malformed(f"That is no token: {error}.") from error
    found = await channel.site.sign_in_by_token(given.address, given.token, channel.actor, throttled=channel.throttled)
    if isinstance(found, Refusal) and (status := STATUS.get(found.reason)) is not None:
        # RFC 7628 §3.2.3: the failure is a challenge, to which the client says one more word before it is told so
        await answer(channel.ask, told(taken, status))
    return found


MECHANISMS: dict[str, Mechanism] = {"PLAIN": _plain, "SCRAM-SHA-256": _scram, "SCRAM-SHA-256-PLUS": _scram_plus}
OF_TOKENS: dict[str, Mechanism] = {"OAUTHBEARER": _oauthbearer, "XOAUTH2": _xoauth2}
