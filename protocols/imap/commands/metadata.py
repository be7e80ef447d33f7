"""GETMETADATA and SETMETADATA (RFC 5464), and what LIST returns of it (RFC 9590).

The annotations of the server (mailbox "") are each person's own under /private; of those for everybody there is /shared/admin,
which nobody sets. The special use of a mailbox is /private/specialuse (RFC 6154 §4), which CREATE sets.
"""

from collections.abc import Iterator, Mapping, Sequence

from cluster.domain.directory.addresses import domain_of
from cluster.domain.mailbox import annotations, rights
from cluster.domain.mailbox.annotations import VALUE_BYTES_MAX
from cluster.domain.mailbox.commands import SetAnnotations
from cluster.domain.refusal import Reason, Refusal
from protocols.imap import writer
from protocols.imap.errors import refused
from protocols.imap.metadata_grammar import INFINITE
from protocols.imap.model import GetMetadata, Reply, Request, SetMetadata
from protocols.imap.naming import named
from protocols.imap.state import Talk
from protocols.port import Mailbox, Named

CAPABILITIES = ("METADATA", "LIST-METADATA")
ADMIN, SPECIAL_USE = "/shared/admin", "/private/specialuse"
READ_ONLY = Reply("NO", "This annotation cannot be set.", "NOPERM")

Values = Mapping[str, bytes | None]


async def get_metadata(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, GetMetadata)
    account, mailbox, shown_as, also = talk.who(), 0, "", _of_server(talk)
    if given.mailbox:
        place = await named(talk, given.mailbox, rights.READ)  # RFC 5464 §3.3
        box = place if isinstance(place, Refusal) else await talk.site.mailbox(place.account, place.name)
        if isinstance(box, Refusal):
            return refused(box)
        assert isinstance(place, Named)
        account, mailbox, shown_as, also = place.account, box.id, place.shown, _of_mailbox(place, box)
    there = await talk.site.annotations(account, (mailbox,), talk.who())
    if isinstance(there, Refusal):
        return refused(there)
    known = dict(sorted({**there.get(mailbox, {}), **also}.items()))
    values = dict(_asked(known, given))
    limit = given.size_max
    # RFC 5464 §4.2.1: what is longer is left out, and the longest of it is told.
    long = max((len(value) for value in values.values() if value is not None and limit is not None and len(value) > limit), default=0)
    shown = {name: value for name, value in values.items() if not long or value is None or limit is None or len(value) <= limit}
    if shown:
        _say(talk, shown_as, shown)
    return Reply("OK", "These.", f"METADATA LONGENTRIES {long}" if long else "")


async def set_metadata(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, SetMetadata)
    names = [name for name, _ in given.values]
    if SPECIAL_USE in names or (not given.mailbox and any(name.startswith(annotations.SHARED) for name in names)):
        return READ_ONLY
    account, name = talk.who(), ""
    if given.mailbox:
        private = all(name.startswith(annotations.PRIVATE) for name in names)
        place = await named(talk, given.mailbox, rights.READ if private else rights.WRITE)  # RFC 5464 §3.3
        if isinstance(place, Refusal):
            return refused(place)
        account, name = place.account, place.name
    done = await talk.site.execute(talk.actor, SetAnnotations(account, name, talk.who(), given.values))
    if not isinstance(done, Refusal):
        return Reply("OK", "Set.")
    match done.reason:  # RFC 5464 §4.3
        case Reason.TOO_BIG:
            return Reply("NO", done.text, f"METADATA MAXSIZE {VALUE_BYTES_MAX}")
        case Reason.OVER_LIMIT:
            return Reply("NO", done.text, "METADATA TOOMANY")
        case _:
            return refused(done)


async def listed(talk: Talk, boxes: Sequence[tuple[Named, Mailbox]], entries: tuple[str, ...]) -> Refusal | None:
    """RFC 9590 §3: a METADATA response for each mailbox that may be read, NIL for what it has not."""
    readable = [(place, box) for place, box in boxes if place.may(rights.READ)]
    by_owner: dict[int, list[int]] = {}
    for place, box in readable:
        by_owner.setdefault(place.account, []).append(box.id)
    known: dict[int, Mapping[str, bytes]] = {}
    for owner, ids in by_owner.items():
        there = await talk.site.annotations(owner, ids, talk.who(), entries)
        if isinstance(there, Refusal):
            return there
        known.update(there)
    for place, box in readable:
        values = {**known.get(box.id, {}), **_of_mailbox(place, box)}
        _say(talk, place.shown, {name: values.get(name) for name in entries})
    return None


def _of_mailbox(place: Named, box: Mailbox) -> dict[str, bytes]:
    """What is not set but so: what it is for, to its owner."""
    return {SPECIAL_USE: box.special_use.encode("ascii")} if box.special_use and not place.reader else {}


def _of_server(talk: Talk) -> dict[str, bytes]:
    assert talk.account is not None
    # RFC 5464 §6.2.1: a URI by which to reach who runs the server. RFC 5321 §4.5.1: that address is always there.
    return {ADMIN: f"mailto:postmaster@{domain_of(talk.account.address)}".encode()}


def _asked(known: Mapping[str, bytes], given: GetMetadata) -> Iterator[tuple[str, bytes | None]]:
    """RFC 5464 §4.2.2: the entries themselves, and what is beneath them; NIL where one by that very name is not there."""
    for entry in given.entries:
        if given.depth == 0 or entry in known:
            yield entry, known.get(entry)
        for name, value in known.items():
            beneath = name.startswith(entry + "/")
            if beneath and (given.depth == INFINITE or given.depth == 1 and "/" not in name[len(entry) + 1 :]):
                yield name, value


def names_only(talk: Talk, mailbox: str, entries: Sequence[str]) -> bytes:
    """RFC 5464 §4.4.2: which have changed, not to what."""
    return b"METADATA " + talk.name(mailbox) + b" " + b" ".join(writer.astring(name.encode("ascii")) for name in entries)


def _say(talk: Talk, mailbox: str, values: Values) -> None:
    pairs = [
        writer.astring(name.encode("ascii")) + b" " + writer.nstring(value, talk.utf8) for name, value in values.items()
    ]
    talk.say(b"METADATA " + talk.name(mailbox) + b" (" + b" ".join(pairs) + b")")
