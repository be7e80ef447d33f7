"""SETACL, DELETEACL, GETACL, LISTRIGHTS and MYRIGHTS (RFC 4314 §3)."""

from cluster.domain.mailbox import rights
from cluster.domain.mailbox.commands import SetRights
from cluster.domain.mailbox.events import FlagMode
from cluster.domain.refusal import Refusal
from protocols.imap import writer
from protocols.imap.errors import refused
from protocols.imap.model import Acl, Name, Reply, Request
from protocols.imap.naming import NO_SUCH_MAILBOX, named
from protocols.imap.state import Talk
from protocols.port import Mailbox, Named

KNOWN_BY = "lrikxa"  # RFC 4314 §4 MYRIGHTS: any of them
MODES = {"+": FlagMode.ADD, "-": FlagMode.REMOVE}


async def set_acl(talk: Talk, request: Request) -> Reply:
    """Also DELETEACL: no rights are left."""
    given = request.arguments
    assert isinstance(given, Acl)
    sign = given.rights[:1]
    wanted = rights.parsed(given.rights[1:] if sign in MODES else given.rights)
    if wanted is None:
        return Reply("BAD", f"Rights are of {rights.ALL}, in small letters.")  # RFC 4314 §3.1
    place = await named(talk, given.mailbox, rights.ADMINISTER)
    if isinstance(place, Refusal):
        return refused(place)
    identifier = await talk.site.identifier(given.identifier)
    if isinstance(identifier, Refusal):
        return refused(identifier)
    command = SetRights(place.account, place.name, identifier, MODES.get(sign, FlagMode.REPLACE), wanted)
    done = await talk.site.execute(talk.actor, command)
    return refused(done) if isinstance(done, Refusal) else Reply("OK", "So it is now.")


async def get_acl(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Name)
    found = await _there(talk, given.mailbox, rights.ADMINISTER)
    if isinstance(found, Refusal):
        return refused(found)
    place, box = found
    known = await talk.site.entries(place.account, box.id)
    if isinstance(known, Refusal):
        return refused(known)
    owner = await _owner(talk, place)
    if isinstance(owner, Refusal):
        return refused(owner)
    line = b"ACL " + talk.name(place.shown)
    for identifier, may in ((owner, rights.ALL), *known):
        line += b" " + writer.astring(identifier.encode(), talk.utf8) + f" {rights.shown(may)}".encode("ascii")
    talk.say(line)
    return Reply("OK", "These.")


async def list_rights(talk: Talk, request: Request) -> Reply:
    """RFC 4314 §3.4: the owner has all rights, always; to all others each can be given by itself."""
    given = request.arguments
    assert isinstance(given, Acl)
    found = await _there(talk, given.mailbox, rights.ADMINISTER)
    if isinstance(found, Refusal):
        return refused(found)
    place, _ = found
    identifier = await talk.site.identifier(given.identifier)
    if isinstance(identifier, Refusal):
        return refused(identifier)
    every = rights.shown(rights.ALL)
    said = every if identifier == str(place.account) else '"" ' + " ".join(every)
    # RFC 4314 §3.4: the identifier as the client said it
    asked = writer.astring(given.identifier.encode(), talk.utf8)
    talk.say(b"LISTRIGHTS " + talk.name(place.shown) + b" " + asked + f" {said}".encode("ascii"))
    return Reply("OK", "These.")


async def my_rights(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Name)
    found = await _there(talk, given.mailbox, "")
    if isinstance(found, Refusal):
        return refused(found)
    place, _ = found
    if not any(place.may(right) for right in KNOWN_BY):
        return refused(NO_SUCH_MAILBOX)
    talk.say(b"MYRIGHTS " + talk.name(place.shown) + f" {rights.shown(place.rights)}".encode("ascii"))
    return Reply("OK", "These.")


async def _there(talk: Talk, name: str, needed: str) -> tuple[Named, Mailbox] | Refusal:
    place = await named(talk, name, needed)
    if isinstance(place, Refusal):
        return place
    box = await talk.site.mailbox(place.account, place.name)
    return box if isinstance(box, Refusal) else (place, box)


async def _owner(talk: Talk, place: Named) -> str | Refusal:
    if not place.reader:
        assert talk.account is not None
        return talk.account.address
    known = await talk.site.addresses((place.account,))
    return known if isinstance(known, Refusal) else known.get(place.account, "")
