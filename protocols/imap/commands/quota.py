"""GETQUOTA, GETQUOTAROOT and SETQUOTA (RFC 9208). A quota root is a person's account, and its name the address: all of a
person's mailboxes are under it. Who has no limits has no root. What is counted: ops/decisions/quota.md."""

from cluster.domain.directory.commands import ChangeAccount
from cluster.domain.mailbox import rights
from cluster.domain.quota import Held
from cluster.domain.refusal import Reason, Refusal
from protocols.imap import writer
from protocols.imap.errors import refused
from protocols.imap.model import Name, Reply, Request, Root, SetQuota
from protocols.imap.naming import named
from protocols.imap.state import Talk
from protocols.port import Named

UNIT_BYTES = 1024  # RFC 9208 §5.1
RESOURCES = ("QUOTA=RES-STORAGE", "QUOTA=RES-MESSAGE")  # RFC 9208 §3.1.1
NO_ROOT = Reply("NO", "There is no such quota root.", "NONEXISTENT")
NOT_YOURS = Reply("NO", "Only administrators set quotas.", "NOPERM")


def offered(talk: Talk) -> tuple[str, ...]:
    """RFC 9208 §1: QUOTASET where SETQUOTA is answered."""
    administrator = talk.account is not None and talk.account.administrator
    return ("QUOTA", *RESOURCES, *(("QUOTASET",) if administrator else ()))


async def getquota(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Root)
    account = await _account(talk, given.root)
    if isinstance(account, Reply):
        return account
    held = await talk.site.quota(account)
    if isinstance(held, Refusal):
        return refused(held)
    if held is None:
        return NO_ROOT
    _say(talk, given.root, held)
    return Reply("OK", "So it stands.")


async def getquotaroot(talk: Talk, request: Request) -> Reply:
    """RFC 9208 §4.1.2: a mailbox without a root is an answer, too."""
    given = request.arguments
    assert isinstance(given, Name)
    assert talk.account is not None
    place = await named(talk, given.mailbox, rights.READ)
    box = place if isinstance(place, Refusal) else await talk.site.mailbox(place.account, place.name)
    if isinstance(box, Refusal):
        return refused(box)
    assert isinstance(place, Named)
    if place.reader:
        # How full another's account is, is nobody else's business.
        talk.say(b"QUOTAROOT " + talk.name(place.shown))
        return Reply("OK", "So it stands.")
    held = await talk.site.quota(talk.who())
    if isinstance(held, Refusal):
        return refused(held)
    root = talk.account.address
    talk.say(b"QUOTAROOT " + talk.name(box.name) + (b"" if held is None else b" " + _name(talk, root)))
    if held is not None:
        _say(talk, root, held)
    return Reply("OK", "So it stands.")


async def setquota(talk: Talk, request: Request) -> Reply:
    """RFC 9208 §4.1.3: what is not named has no limit any more."""
    given = request.arguments
    assert isinstance(given, SetQuota)
    if talk.account is None or not talk.account.administrator:
        return NOT_YOURS
    limits = dict(given.limits)
    if set(limits) - {"STORAGE", "MESSAGE"}:
        return Reply("NO", "Only STORAGE and MESSAGE can be limited.", "CANNOT")
    if 0 in limits.values():
        return Reply("NO", "A limit is above 0; to take it away, leave it out.", "CANNOT")
    account = await _account(talk, given.root)
    if isinstance(account, Reply):
        return account
    storage, messages = limits.get("STORAGE", 0) * UNIT_BYTES, limits.get("MESSAGE", 0)
    done = await talk.site.execute(talk.actor, ChangeAccount(given.root, quota_storage=storage, quota_messages=messages))
    if isinstance(done, Refusal):
        return refused(done)
    held = await talk.site.quota(account)
    if isinstance(held, Refusal):
        return refused(held)
    if held is not None:
        _say(talk, given.root, held)
    return Reply("OK", "Set.")


async def warn(talk: Talk) -> None:
    """RFC 9208 §4.3.1: once for each threshold that is reached, while a mailbox is selected or was just added to."""
    held = await talk.site.quota(talk.who(), fresh=False)
    reached = held.reached[-1] if isinstance(held, Held) and held.reached else 0
    if isinstance(held, Held) and reached > talk.warned:
        talk.say(f"NO [OVERQUOTA] {held.percent}% of what the account may hold is used.")
    talk.warned = reached


async def _account(talk: Talk, root: str) -> int | Reply:
    """Whose root it is: one's own; an administrator's anybody's."""
    assert talk.account is not None
    if root == talk.account.address:
        return talk.who()
    if not talk.account.administrator:
        return NO_ROOT
    found = await talk.site.resolve(root)
    if isinstance(found, Refusal):
        return refused(found) if found.reason is Reason.UNAVAILABLE else NO_ROOT
    addresses = await talk.site.addresses(found.accounts)
    if isinstance(addresses, Refusal):
        return refused(addresses)
    return next((account for account, address in addresses.items() if address == root), NO_ROOT)


def _say(talk: Talk, root: str, held: Held) -> None:
    """RFC 9208 §4.2.1: of each resource that is limited, how much is used and may be."""
    quota, usage = held.quota, held.usage
    triples = []
    if quota.storage:
        # Nothing that is there counts as nothing.
        triples.append(f"STORAGE {-(-usage.storage // UNIT_BYTES)} {quota.storage // UNIT_BYTES}")
    if quota.messages:
        triples.append(f"MESSAGE {usage.messages} {quota.messages}")
    talk.say(b"QUOTA " + _name(talk, root) + f" ({' '.join(triples)})".encode("ascii"))


def _name(talk: Talk, root: str) -> bytes:
    return writer.string(root.encode(), talk.utf8)
