"""The words that need nothing of the site (RFC 5321 §4.1.1.5–10)."""

from protocols.smtp.model import Reply
from protocols.smtp.state import Conversation


async def rset(talk: Conversation, argument: bytes) -> Reply:
    if argument:
        return Reply(501, "5.5.4", ("RSET has no argument",))
    talk.reset()
    return Reply(250, "2.0.0", ("Reset",))


async def noop(talk: Conversation, argument: bytes) -> Reply:
    return Reply(250, "2.0.0", ("Nothing done",))  # §4.1.1.9: an argument is ignored


async def quit_(talk: Conversation, argument: bytes) -> Reply:
    if argument:
        return Reply(501, "5.5.4", ("QUIT has no argument",))
    talk.closing = True
    return Reply(221, "2.0.0", (f"{talk.settings.hostname} says goodbye",))


async def vrfy(talk: Conversation, argument: bytes) -> Reply:
    if not argument:
        return Reply(501, "5.5.4", ("Say an address",))
    # §7.3: strangers are not told who lives here; 252 says that a message would be tried.
    return Reply(252, "2.5.2", ("Send a message and see",))


async def expn(talk: Conversation, argument: bytes) -> Reply:
    return Reply(502, "5.5.1", ("EXPN is not implemented",))  # §7.3


async def help_(talk: Conversation, argument: bytes) -> Reply:
    return Reply(214, "2.0.0", ("EHLO HELO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY HELP STARTTLS AUTH; see RFC 5321",))
