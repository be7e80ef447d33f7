"""The sites of an organisation, and the tokens by which new ones join: two kinds of keys in the control plane.

    members        who belongs to it, what each is known by, and who keeps the control plane
    token.<id>     a promise to let one in, once, until it expires

A member is known by public keys only, so that whoever reads the roster, a stolen site too, learns no secret. The roster
is numbered; what has a smaller number than what is known already is old.
"""

import contextlib
import hashlib
import hmac
from typing import Literal

import msgspec

from cluster.control.bucket import Conflict, Keys
from cluster.control.partitions import PREFIX as PARTITION_PREFIX
from cluster.control.watch import NODE_PREFIX
from cluster.partitions import spool

MEMBERS = "members"
KEPT_PREFIX = "kept."
TOKEN_PREFIX = "token."
VOTERS_WANTED = 3  # the smallest number of which one may be away and the others still decide
TRIES_MAX = 8


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of the organisation's sites, or a witness. Others reach it at `host`; its ports are `port_base` + 6222 for members
    of the backbone, + 7422 for sites, + 6994 for sessions that these carry to it, + 4223 for its own node. `hostname`:
    what clients connect to there, where that is not `host`. `ports`: those of its clients' languages that are not
    `port_base` + the standard one (0 = not offered there). `leaf_key`: of its log's engine, an nkey; `pin`: hex SHA-256 of
    the public key (DER) of its certificate."""

    site: str
    host: str
    port_base: int
    hostname: str = ""
    ports: dict[str, int] = {}
    leaf_key: str = ""
    pin: str = ""
    role: Literal["site", "witness"] = "site"

    @property
    def route_port(self) -> int:
        return self.port_base + 6222

    @property
    def leaf_port(self) -> int:
        return self.port_base + 7422

    @property
    def carry_port(self) -> int:
        return self.port_base + 6994

    @property
    def client_port(self) -> int:
        return self.port_base + 4223


class Roster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`members`: the first site first. `authority`: the site that has the key of the organisation's authority. `voters`:
    who shall keep the control plane, one or three; `formed`: who does, and takes the sites' links."""

    number: int
    members: tuple[Member, ...]
    authority: str
    voters: tuple[str, ...]
    formed: tuple[str, ...]
    revoked: tuple[Member, ...] = ()

    def find(self, name: str) -> Member | None:
        return next((member for member in self.members if member.site == name), None)


def founded(first: Member) -> Roster:
    return Roster(1, (first,), first.site, (first.site,), (first.site,))


def joined(roster: Roster, member: Member) -> Roster:
    """With it. As soon as there are three they keep the control plane together; later ones are linked to those."""
    members = (*roster.members, member)
    voters = _voters(roster.voters, members)
    return msgspec.structs.replace(
        roster, number=roster.number + 1, members=members, voters=voters, formed=_serving(roster.formed, voters)
    )


def may_revoke(roster: Roster, name: str) -> bool:
    """Whether those who are left can decide without it: of two who keep the control plane neither can alone."""
    return name not in roster.formed or len(roster.formed) > 2


def revoked(roster: Roster, name: str) -> Roster:
    """`may_revoke`. Without it, and with somebody else in its place among those who keep the control plane, if there is anybody."""
    gone = roster.find(name)
    assert gone is not None
    members = tuple(member for member in roster.members if member != gone)
    kept = tuple(voter for voter in roster.voters if voter != name)
    formed = tuple(site for site in roster.formed if site != name)
    # Where one keeps it alone still, the others have not begun: it is as if this one had never come.
    voters = _voters(kept if len(roster.formed) > 1 else formed, members)
    return msgspec.structs.replace(
        roster,
        number=roster.number + 1,
        members=members,
        voters=voters,
        formed=_serving(formed, voters) if len(roster.formed) > 1 else formed,
        revoked=(*roster.revoked, gone),
    )


def formed(roster: Roster) -> Roster:
    """The voters keep it now."""
    return msgspec.structs.replace(roster, number=roster.number + 1, formed=roster.voters)


def _serving(formed: tuple[str, ...], voters: tuple[str, ...]) -> tuple[str, ...]:
    """Who comes into a backbone of several serves at once; one alone must first be made one of several."""
    return voters if len(formed) > 1 else formed


def _voters(voters: tuple[str, ...], members: tuple[Member, ...]) -> tuple[str, ...]:
    """Two cannot decide when one is away, so one keeps it alone until there are three."""
    if len(voters) >= VOTERS_WANTED or len(members) < VOTERS_WANTED:
        return voters
    others = [member.site for member in members if member.site not in voters]
    return (*voters, *others[: VOTERS_WANTED - len(voters)])


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As it lies in the control plane: not the secret but its SHA-256. Times are unix seconds."""

    id: str
    digest: str
    site: str  # that may join by it; empty = any
    expires_at: float
    used_at: float = 0.0
    used_by: str = ""

    def matches(self, secret: str) -> bool:
        return hmac.compare_digest(self.digest, digest_of(secret))


def digest_of(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


class Rosters:
    """The keys. Every call raises Unreachable when the control plane does not answer."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def read(self) -> Roster | None:
        entry = await self._keys.get(MEMBERS)
        return msgspec.json.decode(entry.value, type=Roster) if entry.value else None

    async def write(self, roster: Roster) -> bool:
        """False if somebody else has written one with this number or a later one."""
        entry = await self._keys.get(MEMBERS)
        if entry.value and msgspec.json.decode(entry.value, type=Roster).number >= roster.number:
            return False
        try:
            await self._keys.put(MEMBERS, msgspec.json.encode(roster), entry.written)
        except Conflict:
            return False
        return True

    async def token(self, token_id: str) -> Token | None:
        entry = await self._keys.get(TOKEN_PREFIX + token_id)
        return msgspec.json.decode(entry.value, type=Token) if entry.value else None

    async def give(self, token: Token) -> None:
        await self._keys.put(TOKEN_PREFIX + token.id, msgspec.json.encode(token), 0)

    async def forget(self, site: str) -> int:
        """Deletes what lies there of a site that is shut out: how its nodes are, what it keeps, its spool. How many keys that
        were; of a site that could still write some come again."""
        own = [*await self._keys.every(f"{NODE_PREFIX}{site}."), PARTITION_PREFIX + spool(site)]
        own += [key for key in await self._keys.every(KEPT_PREFIX) if key.endswith(f".{site}")]
        deleted = 0
        for key in own:
            entry = await self._keys.get(key)
            if entry.revision:
                with contextlib.suppress(Conflict):
                    await self._keys.delete(key, entry.written)
                deleted += 1
        return deleted

    async def use(self, token: Token, site: str, now: float) -> bool:
        """False if somebody else was faster."""
        entry = await self._keys.get(TOKEN_PREFIX + token.id)
        if not entry.value or msgspec.json.decode(entry.value, type=Token).used_at:
            return False
        used = msgspec.structs.replace(token, used_at=now, used_by=site)
        try:
            await self._keys.put(TOKEN_PREFIX + token.id, msgspec.json.encode(used), entry.written)
        except Conflict:
            return False
        return True
