"""LIST (RFC 9051 §6.3.9, RFC 5258, RFC 5819, RFC 6154, RFC 9590) and LSUB (RFC 3501 §6.3.9)."""

import re
from collections.abc import Callable

import msgspec

from cluster.domain.mailbox import names, rights
from cluster.domain.refusal import Refusal
from protocols.imap.commands import metadata, status
from protocols.imap.errors import refused
from protocols.imap.model import List, Reply, Request
from protocols.imap.state import Talk
from protocols.port import Mailbox, Named

SEPARATOR = names.SEPARATOR


class Row(msgspec.Struct, frozen=True):
    """One line of LIST. `mailbox` None: there is none of this name."""

    name: str
    mailbox: Mailbox | None
    subscribed: bool
    has_children: bool
    subscribed_beneath: bool = False


async def listing(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, List)
    if given.patterns == ("",) and not given.selection:
        # RFC 9051 §6.3.9: an empty name asks for the separator
        talk.say(f'LIST (\\Noselect) "{SEPARATOR}" ""')
        return Reply("OK", "Listed.")
    tree = await _tree(talk, given, with_others=_reaches_others(given))
    if isinstance(tree, Refusal):
        return refused(tree)
    rows = _matching(tree, given)
    for row in rows:
        talk.say(line(talk, row, given))
        if "MYRIGHTS" in given.returns and row.mailbox is not None:
            # RFC 8440 §3: behind the LIST that it belongs to
            mine = tree.places[row.name].rights if row.name in tree.places else rights.ALL
            talk.say(b"MYRIGHTS " + talk.name(row.name) + f" {rights.shown(mine)}".encode("ascii"))
    if "STATUS" in given.returns:
        # RFC 5819 §2: a STATUS after the LIST for each that can be selected
        if "HIGHESTMODSEQ" in given.status:
            talk.enable("CONDSTORE")
        no = await _say_statuses(talk, [row for row in rows if row.mailbox is not None], tree, given.status)
        if no is not None:
            return no
    if "METADATA" in given.returns:
        there = [(tree.places.get(row.name) or Named(talk.who(), row.name), row.mailbox) for row in rows]
        left = await metadata.listed(talk, [(place, box) for place, box in there if box is not None], given.metadata)
        if left is not None:
            return refused(left)
    return Reply("OK", "Listed.")


async def _say_statuses(talk: Talk, rows: list[Row], tree: "Tree", items: tuple[str, ...]) -> Reply | None:
    """Of each whose messages may be counted: RFC 4314 §4 STATUS asks for "r"."""
    by_owner: dict[tuple[int, str], tuple[Named, list[int]]] = {}
    for row in rows:
        place = tree.places.get(row.name) or Named(talk.who(), row.name)
        if row.mailbox is not None and place.may(rights.READ):
            by_owner.setdefault((place.account, place.prefix), (place, []))[1].append(row.mailbox.id)
    for place, asked in by_owner.values():
        known = await talk.site.status(place.account, asked, reader=place.reader)
        if isinstance(known, Refusal):
            return refused(known)
        for one in known:
            talk.say(await status.line(talk, place, one, items))
    return None


async def lsub(talk: Talk, request: Request) -> Reply:
    """RFC 3501 §6.3.9: subscribed names; with "%" a superior of one, as \\Noselect, if it is not subscribed itself."""
    given = request.arguments
    assert isinstance(given, List)
    tree = await _tree(talk, given, with_others=False)
    if isinstance(tree, Refusal):
        return refused(tree)
    fits = _matcher(given)
    shown: dict[str, str] = {}
    for name in tree.subscribed:
        if fits(name):
            shown[name] = ""
        elif given.patterns[0].endswith("%"):
            for superior in names.superiors(name):
                if fits(superior):
                    shown.setdefault(superior, "\\Noselect")
    for name in sorted(shown, key=_order):
        talk.say(f'LSUB ({shown[name]}) "{SEPARATOR}" '.encode("ascii") + talk.name(name))
    return Reply("OK", "Listed.")


class Tree(msgspec.Struct, frozen=True):
    """`mailboxes` by name; `subscribed` names, also of mailboxes that are not there; `parents`: every name that has
    something beneath it; `places`: of the mailboxes of others."""

    mailboxes: dict[str, Mailbox]
    subscribed: frozenset[str]
    parents: frozenset[str]
    places: dict[str, Named] = {}


async def _tree(talk: Talk, given: List, *, with_others: bool) -> Tree | Refusal:
    mailboxes = await talk.site.mailboxes(talk.who())
    if isinstance(mailboxes, Refusal):
        return mailboxes
    subscribed = await talk.site.subscriptions(talk.who())
    if isinstance(subscribed, Refusal):
        return subscribed
    # RFC 9051 §6.3.9: what is expunged is listed to who asks for it by its prefix, or has subscribed to it.
    asked = any((given.reference + pattern).startswith(names.EXPUNGED) for pattern in given.patterns)
    if asked or any(names.is_expunged(name) for name in subscribed):
        expunged = await talk.site.expunged(talk.who())
        if isinstance(expunged, Refusal):
            return expunged
        mailboxes = [*mailboxes, *(one for one in expunged if asked or one.subscribed)]
    tree = {one.name: one for one in mailboxes}
    places: dict[str, Named] = {}
    if with_others:
        others = await talk.site.others(talk.who())
        if isinstance(others, Refusal):
            return others
        # RFC 4314 §4 LIST: what may not be looked up is as what is not there
        there = {place.shown: (place, one) for place, one in others if place.may(rights.LOOKUP)}
        places = {name: place for name, (place, _) in there.items() if name not in tree}
        tree |= {name: there[name][1] for name in places}
    parents = frozenset(superior for name in tree for superior in names.superiors(name))
    return Tree(tree, frozenset(subscribed), parents, places)


def _reaches_others(given: List) -> bool:
    """Whether a pattern may fit a name that begins with a namespace of others."""
    for pattern in given.patterns:
        literal = re.split("[*%]", given.reference + pattern, maxsplit=1)[0]
        if any(literal.startswith(one) or one.startswith(literal) for one in names.NAMESPACES):
            return True
    return False


def _matching(tree: Tree, given: List) -> list[Row]:
    fits = _matcher(given)
    # Superiors that are no mailboxes themselves are names as well (RFC 9051 §6.3.9: \NonExistent).
    candidates: set[str] = set(tree.mailboxes) | tree.parents
    if "SUBSCRIBED" in given.selection:
        candidates |= tree.subscribed
    recursive = "RECURSIVEMATCH" in given.selection
    chosen = {one for one in tree.mailboxes if _selected(tree, one, given.selection)}
    if "SUBSCRIBED" in given.selection:
        chosen |= {one for one in tree.subscribed - set(tree.mailboxes) if "SPECIAL-USE" not in given.selection}
    beneath = {superior for one in chosen for superior in names.superiors(one)} if recursive else set()
    # RFC 5258 §3.5: CHILDINFO says that something beneath it is selected though it does not fit the pattern itself
    informed = {superior for one in chosen if not fits(one) for superior in names.superiors(one)} if recursive else set()
    if recursive:
        candidates |= beneath
    rows = []
    for name in sorted(candidates, key=_order):
        if not fits(name):
            continue
        wanted = name in chosen if given.selection - {"REMOTE", "RECURSIVEMATCH"} else name in candidates
        below = name in informed
        if wanted or below:
            rows.append(Row(name, tree.mailboxes.get(name), name in tree.subscribed, name in tree.parents, below))
    return _without_lone_parents(rows, given)


def _without_lone_parents(rows: list[Row], given: List) -> list[Row]:
    """A name that is no mailbox is shown only where its children are not (RFC 9051 §6.3.9: for "%", not for "*")."""
    if given.selection - {"REMOTE"}:
        return rows
    shown = {superior for row in rows if row.mailbox is not None for superior in names.superiors(row.name)}
    return [row for row in rows if row.mailbox is not None or row.name not in shown]


def _selected(tree: Tree, name: str, selection: frozenset[str]) -> bool:
    if "SUBSCRIBED" in selection and name not in tree.subscribed:
        return False
    return "SPECIAL-USE" not in selection or bool(tree.mailboxes[name].special_use)


def line(talk: Talk, row: Row, given: List) -> bytes:
    """The untagged LIST (RFC 9051 §7.3.1), without its star."""
    attributes: list[str] = []
    if row.mailbox is None:
        # RFC 5258 §3: \NonExistent implies \Noselect, and clients of RFC 3501 know only the latter
        attributes += ["\\NonExistent"] if given.extended or talk.revision_2 else ["\\Noselect"]
    attributes.append("\\HasChildren" if row.has_children else "\\HasNoChildren")  # RFC 3348, RFC 5258 §4
    if row.subscribed and ("SUBSCRIBED" in given.returns or "SUBSCRIBED" in given.selection):
        attributes.append("\\Subscribed")
    if row.mailbox is not None and row.mailbox.special_use:
        attributes.append(row.mailbox.special_use)  # RFC 6154 §2: in plain LIST too
    said = f'LIST ({" ".join(attributes)}) "{SEPARATOR}" '.encode("ascii") + talk.name(row.name)
    if row.subscribed_beneath:
        criteria = " ".join(f'"{word}"' for word in sorted(given.selection - {"REMOTE", "RECURSIVEMATCH"}))
        said += f' ("CHILDINFO" ({criteria}))'.encode("ascii")
    return said


class Pattern:
    """RFC 9051 §6.3.9: "*" is anything, "%" anything but the separator. Takes one step a character, whatever the pattern:
    bit i of the state says that the first i literal characters of the pattern have been met."""

    def __init__(self, pattern: str) -> None:
        self._literals: dict[str, int] = {}
        self._any = self._level = 0
        count = 0
        for sign in pattern:
            if sign == "*":
                self._any |= 1 << count
            elif sign == "%":
                self._level |= 1 << count
            else:
                self._literals[sign] = self._literals.get(sign, 0) | 1 << count
                count += 1
        self._end = 1 << count

    def fits(self, name: str) -> bool:
        state = 1
        for sign in name:
            stays = self._any if sign == SEPARATOR else self._any | self._level
            state = (state & stays) | ((state & self._literals.get(sign, 0)) << 1)
            if not state:
                return False
        return bool(state & self._end)


def _matcher(given: List) -> Callable[[str], bool]:
    """Does a name fit any of the patterns, each behind the reference."""
    patterns = [Pattern(names.canonical(given.reference + pattern)) for pattern in given.patterns if pattern]
    return lambda name: any(pattern.fits(name) for pattern in patterns)


def _order(name: str) -> tuple[bool, str]:
    return name != names.INBOX, name


