"""USER and PASS (RFC 1939 §7), and what every way of signing in ends with."""

from cluster.domain.refusal import Refusal
from protocols.carrying import Traveller, Way, taken
from protocols.pop3.carrying import introduce
from protocols.pop3.errors import TEMPORARY, refused
from protocols.pop3.maildrop import opened
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk
from protocols.port import Account
from protocols.sasl import Channel, by_password

PRIVACY_REQUIRED = Reply(False, "Passwords are taken only under TLS: say STLS, or come to the port of POP3S.")
USER_FIRST = Reply(False, "Say USER first.")


async def user(talk: Talk, argument: bytes) -> Reply:
    if not talk.may_sign_in:
        return PRIVACY_REQUIRED
    if not argument:
        return Reply(False, "Say who you are.")
    talk.user = argument
    # RFC 1939 §7: so it may be said also of somebody who is not known here, and strangers learn no names.
    return Reply(True, "And the password?")


async def password(talk: Talk, argument: bytes) -> Reply:
    if not talk.may_sign_in:
        return PRIVACY_REQUIRED
    name, talk.user = talk.user, None
    if name is None:
        return USER_FIRST
    # RFC 6856 §2.2: UTF-8, of which ASCII is a part
    return await outcome(talk, await by_password(channel(talk), name, argument))


def channel(talk: Talk) -> Channel:
    return Channel(talk.site, talk.actor, talk.ask, talk.secure, not talk.trusted)


async def outcome(talk: Talk, found: Account | Refusal) -> Reply:
    if isinstance(found, Refusal):
        talk.tries += 1
        talk.closing = talk.tries >= talk.settings.sign_in_tries_max
        return refused(found)
    where = await talk.site.elsewhere(found.id)
    if isinstance(where, Refusal):
        return refused(where)
    if where:
        return await _carried(talk, found, where)
    await talk.watch(found.id)
    drop = await opened(talk.site, found)
    if isinstance(drop, Refusal):
        await talk.end()
        return refused(drop)
    talk.account, talk.drop = found, drop
    count = len(drop.uids)
    return Reply(True, f"There {'is one message' if count == 1 else f'are {count} messages'}.")


async def _carried(talk: Talk, account: Account, where: tuple[str, ...]) -> Reply:
    """The mail is at other sites. The password was right: what fails now is no try."""
    settings = talk.settings
    if settings.sites is None or talk.introducer:
        # RFC 3206 §4: nothing is wrong with the password, and the person can do something about it. Whoever carries it to here
        # asks the next site: nobody carries it in circles.
        return Reply(False, f"Your mail is kept at another site: connect to {' or '.join(where)}.", TEMPORARY)
    way = Way("pop3", introduce, settings.sites, settings.reach_s_max, settings.carry_s_max)
    carried = await taken(Traveller(account.address, talk.peer, talk.session), where, way)
    if isinstance(carried, Refusal):
        return refused(carried)
    talk.account, talk.carried = account, carried
    return Reply(True, carried.answer)
