"""LOGIN (RFC 9051 §6.2.3), and what every way of signing in ends with."""

from cluster.domain.refusal import Reason, Refusal
from protocols.carrying import Traveller, Way, taken
from protocols.imap.carrying import introduce
from protocols.imap.commands.capability import words
from protocols.imap.errors import refused
from protocols.imap.model import Login, Reply, Request
from protocols.imap.state import Talk
from protocols.port import Account
from protocols.sasl import Channel, by_password


async def login(talk: Talk, request: Request) -> Reply:
    given = request.arguments
    assert isinstance(given, Login)
    if not talk.may_sign_in:
        return privacy_required()
    return await outcome(talk, await by_password(channel(talk), given.user, given.password))


def channel(talk: Talk) -> Channel:
    return Channel(talk.site, talk.actor, talk.ask, talk.secure, not talk.trusted, talk.end_point)


def privacy_required() -> Reply:
    # RFC 5530 §3; RFC 9051 §6.2.3: with LOGINDISABLED a password is never looked at
    return Reply("NO", "Passwords are taken only under TLS.", "PRIVACYREQUIRED")


async def outcome(talk: Talk, found: Account | Refusal) -> Reply:
    if isinstance(found, Refusal):
        talk.tries += 1
        if talk.tries >= talk.settings.sign_in_tries_max:
            talk.closing = True
            talk.say("BYE Too many attempts.")
        return refused(found)
    where = await talk.site.elsewhere(found.id)
    if isinstance(where, Refusal):
        return refused(where)
    if where:
        return await _carried(talk, found, where)
    talk.account = found
    # A new account gets its mailboxes when they are first asked for; APPEND or SUBSCRIBE may come before LIST.
    await talk.site.mailboxes(found.id)
    # RFC 9051 §7.1: the capabilities of now, which saves the client a round trip
    return Reply("OK", "Signed in.", f"CAPABILITY {words(talk)}")


async def _carried(talk: Talk, account: Account, where: tuple[str, ...]) -> Reply:
    """The mail is at other sites. The password was right: what fails now is no try."""
    if talk.introducer:
        # Whoever carries it to here asks the next site, and nobody carries it in circles.
        return refused(Refusal(Reason.UNAVAILABLE, f"It is not here but at {', '.join(where)}."))
    settings = talk.settings
    way = Way("imap", introduce, settings.sites, settings.reach_s_max, settings.carry_s_max)
    carried = await taken(Traveller(account.address, talk.peer, talk.session), where, way)
    if isinstance(carried, Refusal):
        return refused(carried)
    talk.account, talk.carried = account, carried
    return Reply("OK", "Signed in.", f"CAPABILITY {carried.answer}")
