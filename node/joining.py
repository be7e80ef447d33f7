"""The join door's keeper: makes tokens, lets a site in that brings one, shuts a site out. The site that has the key of the
organisation's authority does it; who came, or came in vain, is in its log, and in the directory for ever.
"""

import asyncio
import datetime
import secrets
from importlib.metadata import version as installed

import structlog

from cluster.control.roster import Member, Roster, Rosters, Token, digest_of, joined, may_revoke, revoked
from cluster.domain.actor import Actor
from cluster.domain.directory.commands import RecordTopology
from cluster.domain.refusal import Reason, Refusal
from cluster.log.connection import Unreachable
from node import certs, nkeys, tokens
from node.assembly import Assembly
from node.config import Config, valid_site_name
from node.releases import together
from node.roster import note
from protocols.admin.joining import Hello, Join, Joined, NewToken, Revoked, TokenGiven

CLOCKS_APART_S_MAX = 300.0
CHANGE_TRIES_MAX = 5
FORGET_EVERY_S = 1.0  # longer than a node's word of itself takes to come again
FORGET_S_MAX = 30.0
QUIET_LOOKS = 2
LOOPBACK = ("127.", "localhost", "::1")
HERE = ("localhost", "127.0.0.1", "::1")  # by which a site's own processes reach each other

AWAY = Refusal(
    Reason.UNAVAILABLE, "The control plane does not answer now; the token is still good. Try again in a while."
)

log = structlog.get_logger("joining")


class JoinDoor:
    def __init__(self, parts: Assembly, rosters: Rosters) -> None:
        self._parts = parts
        self._rosters = rosters
        self._version = installed("angarium")

    async def token(self, actor: Actor, wanted: NewToken) -> TokenGiven | Refusal:
        config, now = self._config, self._now()
        try:
            roster = await self._roster()
        except Unreachable:
            return AWAY
        if isinstance(roster, Refusal):
            return roster
        if wanted.renew and roster.find(wanted.site) is None:
            return Refusal(Reason.NO_SUCH_ENTRY, f"There is no site {wanted.site!r} whose certificates could be renewed.")
        if wanted.site and not wanted.renew and (refusal := _unfit(roster, wanted.site)):
            return refusal
        own = roster.find(config.site)
        assert own is not None
        given = Token(secrets.token_hex(8), "", wanted.site, now + wanted.expires_s)
        secret = secrets.token_urlsafe(32)
        host, ca = wanted.host or own.host, certs.fingerprint(config.tls.ca.read_bytes())
        text = tokens.JoinToken(host, config.ports.https, ca, given.id, secret, wanted.site, given.expires_at)
        try:
            await self._rosters.give(Token(given.id, digest_of(secret), given.site, given.expires_at))
        except Unreachable:
            return AWAY
        log.info("a join token was given", token=given.id, to_site=wanted.site, by=actor.name)
        local = f"{host} is this machine only: give --host, and let listen.bind in angarium.toml serve the network"
        return TokenGiven(tokens.written(text), given.expires_at, local if host.startswith(LOOPBACK) else "")

    async def hello(self) -> Hello | Refusal:
        config = self._config
        roster = await self._roster_or_away()
        if isinstance(roster, Refusal):
            return roster
        own = roster.find(config.site)
        assert own is not None
        return Hello(config.tls.ca.read_text(), self._version, self._now(), config.domain, own.host, own.leaf_port)

    async def join(self, actor: Actor, asked: Join) -> Joined | Refusal:
        try:
            answer = await self._join(asked)
        except Unreachable:
            answer = AWAY
        if isinstance(answer, Refusal):
            log.warning("a site was refused", asks_for=asked.site, peer=actor.address, token=asked.id, why=answer.text)
            return answer
        if asked.renew:
            log.info("a site's certificates were renewed", of=asked.site, token=asked.id)
            return answer
        log.info("a site joined", joined=asked.site, host=asked.host, role=asked.role, token=asked.id)
        await self._record("join", asked.site, f"{asked.role} at {asked.host}")
        return answer

    async def revoke(self, actor: Actor, site: str) -> Revoked | Refusal:
        changed = await self._shut_out(site)
        if isinstance(changed, Refusal):
            return changed
        log.warning("a site was revoked", revoked=site, by=actor.name)
        await self._record("revoke", site, "", actor)
        await self._forget(site)
        return Revoked(site, tuple(member.site for member in changed.members))

    async def without(self, site: str) -> tuple[Roster, Roster] | Refusal:
        """See storage.comings.Membership."""
        roster = await self._roster_or_away()
        if isinstance(roster, Refusal):
            return roster
        if any(gone.site == site for gone in roster.revoked):
            return roster, roster
        changed = self._without(roster, site)
        return changed if isinstance(changed, Refusal) else (roster, changed)

    async def shut_out(self, site: str, by: str) -> str | Refusal:
        """See storage.comings.Membership."""
        rosters = await self.without(site)
        if isinstance(rosters, Refusal):
            return rosters
        if rosters[0] != rosters[1]:
            changed = await self._shut_out(site)
            if isinstance(changed, Refusal):
                return changed
            log.warning("a site was removed", removed=site, by=by)
        return await self._forget(site)

    async def _shut_out(self, site: str) -> Roster | Refusal:
        try:
            for _ in range(CHANGE_TRIES_MAX):
                roster = await self._roster()
                changed = roster if isinstance(roster, Refusal) else self._without(roster, site)
                if isinstance(changed, Refusal):
                    return changed
                if await self._rosters.write(changed):
                    note(self._config.roster_file, changed)
                    return changed
        except Unreachable:
            return AWAY
        return Refusal(Reason.UNAVAILABLE, "Somebody else changes the roster all the time. Try again.")

    def _without(self, roster: Roster, site: str) -> Roster | Refusal:
        if roster.find(site) is None:
            names = ", ".join(member.site for member in roster.members)
            return Refusal(Reason.NO_SUCH_ENTRY, f"There is no site {site}; there are {names}.", (site,))
        if site == self._config.site:
            text = f"{site} has the organisation's authority: it cannot be shut out from here."
            return Refusal(Reason.NOT_PERMITTED, text)
        if not may_revoke(roster, site):
            text = f"{' and '.join(roster.formed)} keep the control plane, and neither can alone"
            return Refusal(Reason.CONFLICT, f"{text}: let another site or a witness join first.")
        return revoked(roster, site)

    async def _forget(self, site: str) -> str:
        """Until nothing comes again: it writes there until the others' engines have shut it out. What to know, empty = all
        is gone."""
        quiet, deadline = 0, asyncio.get_running_loop().time() + FORGET_S_MAX
        while quiet < QUIET_LOOKS:
            try:
                quiet = 0 if await self._rosters.forget(site) else quiet + 1
            except Unreachable as error:
                log.debug("the control plane does not answer", why=str(error))
            if asyncio.get_running_loop().time() > deadline:
                return f"{site} is shut out, and what it said of itself is not forgotten yet: say the same again"
            if quiet < QUIET_LOOKS:
                await asyncio.sleep(FORGET_EVERY_S)
        return ""

    # ── one site that comes ──────────────────────────────────────────────────────────────────────────────────────────

    async def _join(self, asked: Join) -> Joined | Refusal:
        """Raises Unreachable."""
        roster = await self._roster()
        if isinstance(roster, Refusal):
            return roster
        token = await self._token(asked)
        if isinstance(token, Refusal):
            return token
        if refusal := self._unfit(roster, token, asked):
            return refusal
        try:
            link, server = self._certified(asked)
        except (ValueError, OSError) as error:
            return Refusal(Reason.NOT_PERMITTED, f"No certificate can be given: {error}.")
        if not await self._rosters.use(token, asked.site, self._now()):
            return Refusal(Reason.CONFLICT, "This token was used by somebody else at the same time.")
        pin = certs.pin(link)
        if asked.renew:
            return self._joined(asked, (link, server), roster)
        at = asked.site, asked.host, asked.port_base, asked.hostname
        changed = await self._add(Member(*at, leaf_key=asked.leaf_key, pin=pin, role=asked.role))
        if isinstance(changed, Refusal):
            return changed
        return self._joined(asked, (link, server), changed)

    def _joined(self, asked: Join, certificates: tuple[bytes, bytes], roster: Roster) -> Joined:
        config, (link, server) = self._config, certificates
        hmac_key = str(config.hmac_key) if asked.role == "site" else ""
        return Joined(link.decode(), server.decode(), config.tls.ca.read_text(), roster, config.domain, hmac_key)

    def _certified(self, asked: Join) -> tuple[bytes, bytes]:
        """Certificates for the links to other sites, and for clients. Raises ValueError, OSError."""
        tls, now = self._config.tls, utc(self._now())
        authority = tls.ca.read_bytes(), tls.ca_key.read_bytes()
        link, server = (certs.requested_key(pem.encode()) for pem in (asked.link_request, asked.server_request))
        served = tuple(dict.fromkeys((asked.hostname, asked.host, *HERE)))
        return (
            certs.sign(*authority, link, (asked.host, *HERE), now, asked.site),
            certs.sign(*authority, server, served, now),
        )

    async def _token(self, asked: Join) -> Token | Refusal:
        token, now = await self._rosters.token(asked.id), self._now()
        if token is None or not token.matches(asked.secret):
            return Refusal(
                Reason.NOT_PERMITTED,
                "This token was not given by this organisation: make one with `angarium cluster token`.",
            )
        if token.used_at:
            text = f"This token was used at {utc(token.used_at):%Y-%m-%d %H:%M} UTC by {token.used_by}: each is good for one site."
            return Refusal(Reason.NOT_PERMITTED, text)
        if now > token.expires_at:
            text = f"This token expired at {utc(token.expires_at):%Y-%m-%d %H:%M} UTC; here it is {utc(now):%Y-%m-%d %H:%M}."
            return Refusal(Reason.NOT_PERMITTED, f"{text} Make a new one.")
        return token

    def _unfit(self, roster: Roster, token: Token, asked: Join) -> Refusal | None:
        now = self._now()
        if token.site and token.site != asked.site:
            return Refusal(Reason.NOT_PERMITTED, f"This token is for a site named {token.site}, not {asked.site}.")
        if refusal := _not_the_same(roster, asked) if asked.renew else _unfit(roster, asked.site):
            return refusal
        if not together(self._version, asked.version):
            text = f"Release {asked.version} cannot run with release {self._version} here: only neighbours can."
            return Refusal(Reason.CONFLICT, f"{text} Bring the older one up to date first.")
        if abs(asked.clock - now) > CLOCKS_APART_S_MAX:
            text = f"The clocks differ: there it is {utc(asked.clock):%Y-%m-%d %H:%M:%S} UTC, here {utc(now):%Y-%m-%d %H:%M:%S}."
            return Refusal(
                Reason.CONFLICT,
                f"{text} Set the wrong one; more than {CLOCKS_APART_S_MAX / 60:.0f} minutes are too much.",
            )
        if not nkeys.valid(asked.leaf_key):
            return Refusal(Reason.NOT_PERMITTED, "The key of the log's engine is none.")
        if asked.renew:
            return None
        if asked.role == "witness" and len(roster.members) != 2:
            return Refusal(Reason.CONFLICT, f"A witness decides between two sites; here are {len(roster.members)}.")
        taken = [each for each in roster.members if (each.host, each.port_base) == (asked.host, asked.port_base)]
        if taken:
            text = f"{taken[0].site} is at {asked.host} with port base {asked.port_base} already: give another --host or --port-base."
            return Refusal(Reason.CONFLICT, text)
        return None

    async def _add(self, member: Member) -> Roster | Refusal:
        for _ in range(CHANGE_TRIES_MAX):
            roster = await self._rosters.read()
            assert roster is not None
            if refusal := _unfit(roster, member.site):
                return refusal
            changed = joined(roster, member)
            if await self._rosters.write(changed):
                note(self._config.roster_file, changed)  # at once, so that it is let in when it comes
                return changed
        return Refusal(
            Reason.UNAVAILABLE, "Somebody else changes the roster all the time. Make a new token and try again."
        )

    async def _roster(self) -> Roster | Refusal:
        """Raises Unreachable."""
        config = self._config
        if not config.tls.ca_key.exists():
            return Refusal(
                Reason.NOT_PERMITTED,
                f"The key of the organisation's authority, {config.tls.ca_key}, is not at {config.site}.",
            )
        return await self._rosters.read() or AWAY

    async def _roster_or_away(self) -> Roster | Refusal:
        try:
            return await self._roster()
        except Unreachable:
            return AWAY

    async def _record(self, what: str, site: str, after: str, actor: Actor | None = None) -> None:
        who = actor or Actor(
            "join token", administrator=True, site=self._config.site, node=self._parts.name, protocol="admin"
        )
        done = await self._parts.site.execute(
            who, RecordTopology(what, "", "" if after else site, f"{site}: {after}" if after else "")
        )
        if isinstance(done, Refusal) and done.reason is not Reason.NOT_SHOWN_YET:
            log.error("a change of the roster is not in the directory", what=what, of=site, why=done.text)

    @property
    def _config(self) -> Config:
        return self._parts.config

    def _now(self) -> float:
        return self._parts.world.now()


def utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _unfit(roster: Roster, name: str) -> Refusal | None:
    if not valid_site_name(name):
        return Refusal(
            Reason.NOT_PERMITTED, f"A site's name is lower-case letters, digits and dashes (at most 31), not {name!r}."
        )
    if roster.find(name) is not None:
        return Refusal(Reason.CONFLICT, f"There is a site named {name} already: choose another name.", (name,))
    if any(gone.site == name for gone in roster.revoked):
        # What lies under its name is not the newcomer's: the log of its spool begins again, and its keys are shut out.
        return Refusal(Reason.CONFLICT, f"A site named {name} was removed or revoked: choose another name.", (name,))
    return None


def _not_the_same(roster: Roster, asked: Join) -> Refusal | None:
    """Of certificates that are renewed: whether it is the site that is known here, by the key of its links."""
    member = roster.find(asked.site)
    if member is None:
        return Refusal(Reason.NO_SUCH_ENTRY, f"There is no site {asked.site} (any more): nothing can be renewed.", (asked.site,))
    try:
        same = certs.pin_of(certs.requested_key(asked.link_request.encode())) == member.pin
    except ValueError:
        same = False
    if same and asked.leaf_key == member.leaf_key:
        return None
    return Refusal(Reason.NOT_PERMITTED, f"{asked.site} is known here by other keys: only with them can it be renewed.")
