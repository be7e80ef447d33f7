"""What a mailbox name means that somebody says, whose it is, and what may be done with it (RFC 2342, RFC 4314)."""

from collections.abc import Mapping

from cluster.domain.actor import Actor
from cluster.domain.directory import addresses
from cluster.domain.directory.state import Account, Group, Missing, Slice
from cluster.domain.mailbox import names, rights
from cluster.domain.mailbox.commands import AnyCommand, Deliver, OpenAccount
from cluster.domain.refusal import Reason, Refusal
from storage.directory import Directory
from storage.postgres.mail_view import NUL, MailView
from storage.postgres.shared_view import SharedView
from storage.shapes import Mailbox, Named

NO_SUCH_MAILBOX = Refusal(Reason.NO_SUCH_MAILBOX, "There is no such mailbox.")
NO_SUCH_ADDRESS = Refusal(Reason.NO_SUCH_ADDRESS, "No account and no group has this address.")
ADMINISTRATION = "admin"  # the protocol of whoever administers the site
PREFIXES = {names.OTHERS: False, names.SHARED: True}  # first level → is the owner's account shared


class Sharing:
    """Raises the database's AWAY."""

    def __init__(self, view: SharedView, mail: MailView, directory: Directory) -> None:
        self._view = view
        self._mail = mail
        self._directory = directory

    async def named(self, who: int, name: str) -> Named | Refusal:
        """NO_SUCH_MAILBOX where no mailbox of this name could be."""
        if not names.is_elsewhere(name):
            return Named(who, names.canonical(name))
        # A name from before there were others.
        if await self._mail.mailbox(who, name) is not None:
            return Named(who, name)
        first, address, rest = split(name)
        canonical = addresses.canonical(address)
        if canonical is None or not rest or NUL in name:
            return NO_SUCH_MAILBOX
        owner = await self._view.owner(canonical, shared=PREFIXES[first])
        if owner is None or owner == who:
            return NO_SUCH_MAILBOX
        wanted = names.canonical(rest)
        granted = await self._view.place(who, owner, wanted)
        return Named(owner, wanted, who, granted, prefix_of(canonical, shared=PREFIXES[first]))

    async def others(self, who: int) -> list[tuple[Named, Mailbox]]:
        found = []
        for one in await self._view.others(who):
            prefix = prefix_of(one.address, shared=one.shared)
            named = Named(one.account, one.mailbox.name, who, one.granted, prefix)
            found.append((named, one.mailbox))
        return found

    async def rights(self, who: int, account: int, mailbox: int) -> str:
        return (await self._view.granted(who, account, mailbox)).get(mailbox, "")

    async def granted(self, who: int, account: int) -> Mapping[int, str]:
        return await self._view.granted(who, account)

    async def entries(self, account: int, mailbox: int) -> list[tuple[str, str]]:
        return await self._view.entries(account, mailbox)

    async def naming(self, identifier: str) -> list[tuple[int, str]]:
        return await self._view.naming(identifier)

    async def identifier(self, given: str) -> str | Refusal:
        """ADDRESS_INVALID, NO_SUCH_ADDRESS."""
        bare = rights.bare(given)
        negative = given[: len(given) - len(bare)]
        if bare.lower() == rights.ANYONE:
            return negative + rights.ANYONE
        canonical = addresses.canonical(bare)
        if canonical is None:
            return Refusal(Reason.ADDRESS_INVALID, "An identifier is an address or anyone.", (given,))

        def ask(known: Slice) -> str | Missing:
            if canonical not in known.entries:
                return Missing(frozenset({canonical}))
            entry = known.entries[canonical]
            return str(entry.id) if isinstance(entry, Account) else entry.address if isinstance(entry, Group) else ""

        found = await self._directory.ask(ask)
        return negative + found if found else NO_SUCH_ADDRESS


def asks_for_another(actor: Actor, command: AnyCommand) -> bool:
    """Whether somebody who signed in asks for something in another's mailboxes, so that the rights decide. Mail is delivered to
    everybody, and an administrator's door is a door of its own."""
    if actor.account in (0, command.account) or actor.protocol == ADMINISTRATION:
        return False
    return not isinstance(command, Deliver | OpenAccount)


def split(name: str) -> tuple[str, str, str]:
    """(namespace, address, name in its owner's tree) of somebody else's; what is missing is empty. A "/" may stand in an
    address before its "@" (RFC 5322 §3.2.3), and never behind it."""
    first, _, rest = name.partition(names.SEPARATOR)
    at = rest.find("@")
    end = rest.find(names.SEPARATOR, at) if at >= 0 else -1
    return (first, rest, "") if end < 0 else (first, rest[:end], rest[end + 1 :])


def prefix_of(address: str, *, shared: bool) -> str:
    return names.SEPARATOR.join((names.SHARED if shared else names.OTHERS, address, ""))
