"""What a client wants to be told at any time (RFC 5465): of the mailboxes it watches, beside the selected one.

One watch on each owner's account wakes the session and names the mailboxes that were touched; those, and no others, are then
compared with what was known of them. The tree is read again only when it was touched.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack

import msgspec

from cluster.domain.mailbox import names, rights
from cluster.domain.refusal import Refusal
from protocols.imap.commands.fetch import tell_new
from protocols.imap.commands.listing import Row
from protocols.imap.commands.listing import line as list_line
from protocols.imap.commands.metadata import names_only
from protocols.imap.commands.status import line as status_line
from protocols.imap.model import EventGroup, List, Notify
from protocols.imap.notify_grammar import FLAGS, NEW, OF_SELECTED
from protocols.imap.sources import Candidate, candidates, fits
from protocols.imap.state import Talk
from protocols.imap.view import View
from protocols.port import SiteUnavailable, Status, Watch

NAME, SUBSCRIPTION = "MAILBOXNAME", "SUBSCRIPTIONCHANGE"
METADATA, SERVER = "MAILBOXMETADATACHANGE", "SERVERMETADATACHANGE"
TREE = 0  # among the mailboxes that were touched: the tree, and the account's own annotations
ACCOUNT = 0  # among those with annotations
NOTHING = EventGroup("", (), frozenset())
LISTED = List("", ("*",), returns=frozenset(("SUBSCRIBED",)), extended=True)
ITEMS = ("MESSAGES", "UIDNEXT", "UIDVALIDITY", "UNSEEN")

Stand = tuple[int, int, int, int]  # of a mailbox: UIDVALIDITY, UIDNEXT, messages, HIGHESTMODSEQ
Values = Mapping[int, Mapping[str, bytes]]  # annotations by mailbox


class TooMuch(Exception):
    """More is to be watched than one session may."""


class Watched(msgspec.Struct, frozen=True):
    """`readable`: it may not only be looked up."""

    one: Candidate
    events: frozenset[str]
    readable: bool


class Notices:
    """`asked` None: nothing is wanted."""

    def __init__(self, talk: Talk, asked: Notify) -> None:
        self._talk = talk
        groups = asked.groups or ()
        selected = next((group for group in groups if group.filter in OF_SELECTED), NOTHING)
        self.silent = not selected.events
        self.flags = FLAGS in selected.events
        self.at_once = selected.filter == "SELECTED"
        self._items = selected.items
        self._groups = [
            (group, frozenset(map(names.canonical, group.mailboxes)))
            for group in groups
            if group.filter not in OF_SELECTED
        ]
        self._of_server = any(SERVER in group.events for group in groups)
        self._new: list[int] = []  # UIDs that are to be fetched,
        self._new_in: View | None = None  # of this mailbox
        self._watching = AsyncExitStack()
        self._watches: dict[int, Watch] = {}
        self._touched: dict[int, frozenset[int] | None] = {}
        self._boxes: dict[int, Watched] = {}
        self._stands: dict[int, Stand] = {}
        self._parents: set[str] = set()  # names that have something beneath them
        self._subscribed: frozenset[str] = frozenset()
        self._values: dict[int, Mapping[str, bytes]] = {}

    @property
    def rolled_back(self) -> bool:
        return any(watch.rolled_back for watch in self._watches.values())

    async def close(self) -> None:
        await self._watching.aclose()

    def came(self, view: View, uids: Sequence[int]) -> None:
        if not self._items:
            return
        if self._new_in is not view:
            self._new.clear()
        self._new_in = view
        self._new.extend(uids)

    # -- the beginning ---------------------------------------------------------------------------------------------------
    async def begin(self, *, status: bool) -> None:
        """Learns how all stands now; `status`: and says it (RFC 5465 §3.1). Raises TooMuch, SiteUnavailable."""
        if not self._groups:
            return
        self._boxes = await self._found()
        self._subscribed = await self._subscriptions()
        await self._stand(self._messages(), told=status, empty=True)
        self._values = dict(await self._annotations(None))
        for one in self._boxes.values():
            if not one.readable:
                # RFC 5465 §5.9: it may be seen, and nothing be learnt of what is in it
                self._say_list(one.one, "\\NoAccess")

    async def _found(self) -> dict[int, Watched]:
        """The mailboxes that are wanted, each owner's account watched since before they were looked for."""
        talk, settings = self._talk, self._talk.settings
        sources = [(group.filter, group.mailboxes) for group, _ in self._groups]
        await self._watch((talk.who(),))
        while True:
            known = await candidates(talk, sources, rights.LOOKUP)
            if isinstance(known, Refusal):
                raise SiteUnavailable(known.text)
            self._parents = {superior for one in known for superior in names.superiors(one.name)}
            wanted = ((one, self._wants(one)) for one in known)
            found = {
                one.mailbox.id: Watched(one, events, one.place.may(rights.READ)) for one, events in wanted if events
            }
            owners = {each.one.place.account for each in found.values()} - set(self._watches)
            most = settings.notify_mailboxes_max, settings.notify_owners_max
            if len(found) > most[0] or len(self._watches) + len(owners) > most[1]:
                raise TooMuch
            if not owners:
                return found
            await self._watch(owners)

    async def _watch(self, owners: Iterable[int]) -> None:
        for owner in owners:
            if owner not in self._watches:
                watching = self._talk.site.watch(owner, None, self._talk.bell)
                self._watches[owner] = await self._watching.enter_async_context(watching)

    def _wants(self, one: Candidate) -> frozenset[str]:
        return self._events(one.name, personal=not one.place.reader, subscribed=one.subscribed)

    def _events(self, name: str, *, personal: bool, subscribed: bool) -> frozenset[str]:
        """RFC 5465 §6: of all the groups that the mailbox fits together."""
        fitting = (
            group.events
            for group, asked in self._groups
            if fits(name, group.filter, asked, personal=personal, subscribed=subscribed)
        )
        return frozenset().union(*fitting)

    # -- what happened ---------------------------------------------------------------------------------------------------
    async def tell(self) -> None:
        """Raises SiteUnavailable; what was not told then is told the next time."""
        talk = self._talk
        if self._new and self._new_in is talk.view:
            await tell_new(talk, self._new, self._items)
        self._new.clear()
        self._new_in = None
        for owner, watch in self._watches.items():
            if await watch.wait(0):
                self._touch(owner, watch.take())
        if not self._touched:
            return
        touched, self._touched = self._touched, {}
        try:
            fresh = await self._tree_changed() if self._may_be_another_tree(touched) else []
            await self._stand(list(dict.fromkeys((*self._messages(touched), *fresh))), told=True)
            await self._say_metadata(touched)
        except TooMuch:
            # RFC 5465 §5.8: from here on it is as after NOTIFY NONE
            talk.say("OK [NOTIFICATIONOVERFLOW] Too much is watched: nothing is told any more.")
            await talk.notice(Notices(talk, Notify(None)))
        except SiteUnavailable:
            for owner, boxes in touched.items():
                self._touch(owner, boxes)
            raise

    def _touch(self, owner: int, boxes: frozenset[int] | None) -> None:
        before = self._touched.get(owner, frozenset())
        self._touched[owner] = None if boxes is None or before is None else before | boxes

    def _may_be_another_tree(self, touched: Mapping[int, frozenset[int] | None]) -> bool:
        """Of another's mailboxes the rights may have changed with anything."""
        who = self._talk.who()
        return any(owner != who or boxes is None or TREE in boxes for owner, boxes in touched.items())

    def _messages(self, touched: Mapping[int, frozenset[int] | None] | None = None) -> list[int]:
        """Those of the mailboxes touched (None: of all) whose messages are asked for."""
        return [box for box, one in self._boxes.items() if NEW in one.events and one.readable and _in(one, touched)]

    async def _tree_changed(self) -> list[int]:
        """Says LIST for what is new, gone, renamed, or (un)subscribed (RFC 5465 §5.4, §5.5). The mailboxes that are new."""
        was, before = self._boxes, self._subscribed
        now = await self._found()
        subscribed = await self._subscriptions()
        self._boxes, self._subscribed = now, subscribed
        for box, gone in was.items():
            if box not in now:
                self._forget(box)
                if NAME in gone.events:
                    self._say_list(None, name=gone.one.name)
        said: set[str] = set()
        for box, one in now.items():
            known = was.get(box)
            renamed = known is not None and known.one.name != one.one.name
            if NAME in one.events and (known is None or renamed or known.readable != one.readable):
                old = known.one.name if known is not None and renamed else ""
                self._say_list(one.one, "" if one.readable else "\\NoAccess", old=old)
                said.add(one.one.name)
        by_name = {one.one.name: one.one for one in now.values()}
        for name in sorted((before ^ subscribed) - said):
            personal = not names.is_elsewhere(name)
            if SUBSCRIPTION in self._events(name, personal=personal, subscribed=True):
                self._say_list(by_name.get(name), name=name)
        return [box for box in self._messages() if box not in was]

    def _forget(self, box: int) -> None:
        self._stands.pop(box, None)
        self._values.pop(box, None)

    def _say_list(self, one: Candidate | None, attribute: str = "", *, name: str = "", old: str = "") -> None:
        """`one` None: there is no mailbox of that name."""
        talk = self._talk
        shown = one.name if one is not None else name
        subscribed = one.subscribed if one is not None else shown in self._subscribed
        row = Row(shown, one.mailbox if one is not None else None, subscribed, shown in self._parents)
        said = list_line(talk, row, LISTED)
        if attribute:
            said = said.replace(b"LIST (", b"LIST (" + attribute.encode("ascii") + b" ", 1)
        if old:
            said += b' ("OLDNAME" (' + talk.name(old) + b"))"  # RFC 5465 §5.4, RFC 9051 §7.3.1
        talk.say(said)

    # -- messages --------------------------------------------------------------------------------------------------------
    async def _stand(self, boxes: Sequence[int], *, told: bool, empty: bool = False) -> None:
        """Learns how these stand, and with `told` says STATUS for those of which that is news (RFC 5465 §5.1 to §5.3); `empty`: it
        is news too of one that never held anything."""
        selected = self._talk.view.mailbox if self._talk.view is not None else 0
        by_owner: dict[tuple[int, str], list[int]] = {}
        for box in boxes:
            if box == selected:
                self._stands.pop(box, None)  # what happens there is told in other words
                continue
            place = self._boxes[box].one.place
            by_owner.setdefault((place.account, place.prefix), []).append(box)
        for (owner, _), asked in by_owner.items():
            reader = self._boxes[asked[0]].one.place.reader
            known = await self._talk.site.status(owner, asked, reader=reader)
            if isinstance(known, Refusal):
                raise SiteUnavailable(known.text)
            for one in known:
                await self._stands_so(one, told=told and (empty or one.uidnext > 1))

    async def _stands_so(self, known: Status, *, told: bool) -> None:
        talk, box = self._talk, known.mailbox.id
        one = self._boxes[box]
        stand = (known.mailbox.uidvalidity, known.uidnext, known.messages, known.highestmodseq)
        before = self._stands.get(box)
        self._stands[box] = stand
        flags = FLAGS in one.events
        if told and (before is None or before[:3] != stand[:3] or flags and before != stand):
            # RFC 5465 §5.1: what is changed is a matter of HIGHESTMODSEQ; RFC 7162 §3.1: so it is to who has enabled it
            items = (*ITEMS, "HIGHESTMODSEQ") if flags or talk.condstore else ITEMS
            talk.say(await status_line(talk, one.one.place, known, items))
            if talk.full:
                await talk.flush()

    # -- annotations and subscriptions -----------------------------------------------------------------------------------
    async def _subscriptions(self) -> frozenset[str]:
        if not any(SUBSCRIPTION in group.events for group, _ in self._groups):
            return frozenset()
        known = await self._talk.site.subscriptions(self._talk.who())
        if isinstance(known, Refusal):
            raise SiteUnavailable(known.text)
        return frozenset(known)

    async def _annotations(self, touched: Mapping[int, frozenset[int] | None] | None) -> Values:
        who = self._talk.who()
        by_owner: dict[int, list[int]] = {}
        for box, one in self._boxes.items():
            if METADATA in one.events and one.readable and _in(one, touched):
                by_owner.setdefault(one.one.place.account, []).append(box)
        if self._of_server and (touched is None or who in touched):
            by_owner.setdefault(who, []).append(ACCOUNT)
        found: dict[int, Mapping[str, bytes]] = {}
        for owner, boxes in by_owner.items():
            known = await self._talk.site.annotations(owner, boxes, who)
            if isinstance(known, Refusal):
                raise SiteUnavailable(known.text)
            found.update({box: known.get(box, {}) for box in boxes})
        return found

    async def _say_metadata(self, touched: Mapping[int, frozenset[int] | None]) -> None:
        """RFC 5465 §5.6, §5.7."""
        for box, values in (await self._annotations(touched)).items():
            before = self._values.get(box, {})
            self._values[box] = values
            changed = [name for name in sorted({*before, *values}) if before.get(name) != values.get(name)]
            if changed:
                name = self._boxes[box].one.name if box != ACCOUNT else ""
                self._talk.say(names_only(self._talk, name, changed))


def _in(one: Watched, touched: Mapping[int, frozenset[int] | None] | None) -> bool:
    if touched is None:
        return True
    boxes = touched.get(one.one.place.account, frozenset())
    return boxes is None or one.one.mailbox.id in boxes
