"""Who signs in: the directory's verifiers, checked in threads, slowed down for who guesses.

A sign-in changes nothing, so it is no event; it is a line in the audit log of this node.
"""

from typing import Protocol

import structlog

from cluster.domain.actor import Actor
from cluster.domain.directory import addresses
from cluster.domain.directory.state import Account as Entry
from cluster.domain.directory.state import Missing, Slice
from cluster.domain.refusal import Reason, Refusal
from storage.bearer import Issuer, IssuerAway, TokenRefused
from storage.credentials import PASSWORD_LABEL, Credentials, CredentialsBusy, scram_parts
from storage.directory import Directory
from storage.shapes import Account, ScramKeys, TokensTaken
from storage.throttle import SignIns

WRONG = Refusal(Reason.WRONG_PASSWORD, "The address or the password is wrong.")
SUSPENDED = Refusal(Reason.ACCOUNT_SUSPENDED, "The account is suspended; ask your administrator.")
BAD_TOKEN = Refusal(Reason.WRONG_PASSWORD, "The token is not taken here, or is somebody else's.")
NOT_SCOPED = Refusal(Reason.NOT_PERMITTED, "The token is not for mail.")
ISSUER_AWAY = Refusal(Reason.UNAVAILABLE, "Whoever issued the token cannot be asked now; try again.")
NOT_KNOWN = Refusal(Reason.NO_SUCH_ACCOUNT, "This site does not know the account, or not yet.")
BUSY = Refusal(Reason.UNAVAILABLE, "Too many people sign in at the moment; try again.")

TOKEN_LABEL = "token"

log = structlog.get_logger("sign-in")


class Observer(Protocol):
    """Hears of every sign-in that was tried: for metrics."""

    def signed_in(self, protocol: str, *, ok: bool) -> None: ...


class SignIn:
    """Raises the database's AWAY."""

    def __init__(
        self, directory: Directory, credentials: Credentials, throttle: SignIns, issuer: Issuer | None = None
    ) -> None:
        self._directory = directory
        self._credentials = credentials
        self._throttle = throttle
        self._issuer = issuer
        self.observer: Observer | None = None

    async def by_password(self, address: str, password: str, actor: Actor, *, throttled: bool) -> Account | Refusal:
        name = _name(address)
        if throttled and (wait := self._throttle.wait_s(actor.address, name)) > 0:
            return _slow_down(wait)
        entry = await self._entry(name)
        verifiers = []
        if entry is not None:
            if entry.verifier is not None:
                verifiers.append((PASSWORD_LABEL, entry.verifier))
            verifiers.extend(entry.app_passwords.items())
        try:
            label = await self._credentials.verify(verifiers, entry.id if entry else 0, password)
        except CredentialsBusy:
            return BUSY
        return self._outcome(entry if label else None, label or "", name, actor)

    async def scram_keys(self, address: str) -> ScramKeys:
        name = _name(address)
        entry = await self._entry(name)
        kept = scram_parts(entry.verifier.scram_sha_256) if entry is not None and entry.verifier is not None else None
        if entry is None or kept is None:
            return ScramKeys(*self._credentials.made_up(name), account=None)
        return ScramKeys(*kept, account=_account(entry, PASSWORD_LABEL))

    async def by_scram(self, account: Account | None, actor: Actor, address: str) -> Account | Refusal:
        name = _name(address)
        if (wait := self._throttle.wait_s(actor.address, name)) > 0:
            return _slow_down(wait)
        entry = await self._entry(account.address) if account else None
        return self._outcome(entry, PASSWORD_LABEL, name, actor)

    @property
    def tokens(self) -> TokensTaken | None:
        return self._issuer.taken if self._issuer is not None else None

    async def by_token(self, address: str, token: str, actor: Actor, *, throttled: bool) -> Account | Refusal:
        """`address` empty: whom the token names; it must name the same otherwise."""
        asked = _name(address)
        # Whoever names nobody is counted by where they come from alone: one stranger must not slow down all who do so.
        counted = asked or f"@{actor.address}"
        if throttled and (wait := self._throttle.wait_s(actor.address, counted)) > 0:
            return _slow_down(wait)
        facts = {"account": asked, "address": actor.address, "protocol": actor.protocol, "session": actor.session}
        named, scoped = "", True
        try:
            if self._issuer is not None:
                named = _name(await self._issuer.named(token))
            if address and named and asked != named:
                log.info("a token of somebody else", named=named, **facts)
                named = ""
        except IssuerAway as away:
            log.warning("a token cannot be judged", why=str(away), **facts)
            return ISSUER_AWAY
        except TokenRefused as refused:
            log.info("a token is not taken", why=str(refused), **facts)
            scoped = not refused.scope
        found = self._outcome(await self._entry(named), TOKEN_LABEL, named or counted, actor)
        if isinstance(found, Refusal) and found.reason is Reason.WRONG_PASSWORD:
            return BAD_TOKEN if scoped else NOT_SCOPED
        return found

    async def by_site(self, address: str, by: str, actor: Actor) -> Account | Refusal:
        """Who signed in at the site `by`, which vouches for it; `actor.address` is the client's own. Guesses at passwords
        are slowed down there."""
        entry = await self._entry(_name(address))
        if entry is None:
            log.warning("introduced, and not known here", account=address, by=by, address=actor.address)
            return NOT_KNOWN
        facts = {"account": entry.address, "by": by, "address": actor.address, "session": actor.session}
        if entry.suspended:
            log.info("a suspended account was introduced", **facts)
            return SUSPENDED
        log.info("introduced", **facts)
        return _account(entry, PASSWORD_LABEL)

    def _outcome(self, entry: Entry | None, label: str, name: str, actor: Actor) -> Account | Refusal:
        facts = {"address": actor.address, "protocol": actor.protocol, "session": actor.session}
        if self.observer is not None:
            self.observer.signed_in(actor.protocol, ok=entry is not None and not entry.suspended)
        if entry is None:
            self._throttle.failed(actor.address, name)
            log.info("sign-in refused", account=name, **facts)
            return WRONG
        self._throttle.succeeded(actor.address, name)
        if entry.suspended:
            log.info("sign-in of a suspended account", account=name, **facts)
            return SUSPENDED
        log.info("signed in", account=name, credential=label, **facts)
        return _account(entry, label)

    async def _entry(self, name: str) -> Entry | None:
        """The account of this canonical address; through an alias nobody signs in."""

        def ask(known: Slice) -> Entry | None | Missing:
            if name not in known.entries:
                return Missing(frozenset({name}))
            found = known.entries[name]
            return found if isinstance(found, Entry) else None

        return await self._directory.ask(ask) if name else None


def _name(address: str) -> str:
    return addresses.canonical(address) or ""


def _account(entry: Entry, label: str) -> Account:
    return Account(entry.id, entry.address, entry.name, entry.administrator, label, entry.pop3_since, entry.file_sent)


def _slow_down(wait_s: float) -> Refusal:
    return Refusal(Reason.THROTTLED, f"Too many wrong passwords; try again in {wait_s:.0f} seconds.")
