"""Of a site in memory: the accounts, whose mailboxes are whose, and who may do what with them."""

from cluster.domain.mailbox import names, rights
from cluster.domain.mailbox.state import AccountMail, Box, MailState
from cluster.domain.refusal import Reason, Refusal
from protocols.port import Account, Mailbox, Named
from storage.sharing import NO_SUCH_ADDRESS, NO_SUCH_MAILBOX, PREFIXES, prefix_of, split


class Whose:
    def __init__(self) -> None:
        self.state = MailState()
        self._people: dict[str, tuple[Account, str]] = {}
        self.kept_at: dict[int, tuple[str, ...]] = {}  # whose mail is at other sites only
        self.shared: set[int] = set()  # accounts with which nobody signs in
        self.groups: dict[str, tuple[str, ...]] = {}

    def _mail(self, account: int) -> AccountMail:
        return self.state.accounts.get(account) or AccountMail(0)

    def _box(self, account: int, mailbox: int) -> Box | None:
        return self._mail(account).boxes.get(mailbox)

    def _absent(self, account: int) -> Refusal | None:
        where = self.kept_at.get(account)
        return (
            Refusal(Reason.UNAVAILABLE, f"This mail is not here but at {', '.join(where)}.", where) if where else None
        )

    def _granted(self, who: int, box: Box) -> str:
        fits = {rights.ANYONE, str(who)}
        fits |= {group for group, members in self.groups.items() if self._address(who) in members}
        return rights.combined(entry for entry in box.rights.items() if rights.bare(entry[0]) in fits)

    def _address(self, account: int) -> str:
        return next((one.address for one, _ in self._people.values() if one.id == account), "")

    async def named(self, who: int, name: str) -> Named | Refusal:
        if not names.is_elsewhere(name):
            return Named(who, names.canonical(name))
        first, address, rest = split(name)
        owner, _ = self._people.get(address.lower(), (None, ""))
        if owner is None or owner.id == who or not rest or PREFIXES[first] != (owner.id in self.shared):
            return NO_SUCH_MAILBOX
        mail, wanted = self._mail(owner.id), names.canonical(rest)
        box = mail.boxes.get(mail.names.get(wanted, 0))
        granted = self._granted(who, box) if box else ""
        prefix = prefix_of(owner.address, shared=PREFIXES[first])
        return self._absent(owner.id) or Named(owner.id, wanted, who, granted, prefix)

    async def others(self, who: int) -> list[tuple[Named, Mailbox]] | Refusal:
        found = []
        for owner, _ in sorted(self._people.values(), key=lambda pair: (pair[0].id in self.shared, pair[0].address)):
            mail = self._mail(owner.id)
            for box in sorted(mail.boxes.values(), key=lambda box: (box.name != names.INBOX, box.name)):
                if owner.id != who and (granted := self._granted(who, box)):
                    prefix = prefix_of(owner.address, shared=owner.id in self.shared)
                    place = Named(owner.id, box.name, who, granted, prefix)
                    found.append((place, Mailbox(box.id, box.name, box.uidvalidity, "", False)))
        return found

    async def rights(self, who: int, account: int, mailbox: int) -> str | Refusal:
        box = self._box(account, mailbox)
        return self._granted(who, box) if box else ""

    async def entries(self, account: int, mailbox: int) -> list[tuple[str, str]] | Refusal:
        box = self._box(account, mailbox)
        found = []
        for identifier, may in box.rights.items() if box else ():
            bare = rights.bare(identifier)
            shown = self._address(int(bare)) if bare.isdigit() else bare
            found.append((identifier.removesuffix(bare) + shown, may))
        return sorted(found, key=lambda entry: (rights.bare(entry[0]) != rights.ANYONE, entry[0]))

    async def naming(self, identifier: str) -> list[tuple[int, str]] | Refusal:
        boxes = ((account, box) for account, mail in self.state.accounts.items() for box in mail.boxes.values())
        return [(account, box.name) for account, box in boxes if identifier in map(rights.bare, box.rights)]

    async def identifier(self, given: str) -> str | Refusal:
        bare = rights.bare(given)
        found, _ = self._people.get(bare.lower(), (None, ""))
        known = str(found.id) if found else bare.lower() if bare.lower() in (rights.ANYONE, *self.groups) else ""
        return given.removesuffix(bare) + known if known else NO_SUCH_ADDRESS
