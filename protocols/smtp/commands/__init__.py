"""One word of the wire, one file, one function, one row here."""

from collections.abc import Awaitable, Callable

from protocols.smtp.commands.auth import auth
from protocols.smtp.commands.data import bdat, data
from protocols.smtp.commands.hello import ehlo, helo, lhlo
from protocols.smtp.commands.mail import mail
from protocols.smtp.commands.plain import expn, help_, noop, quit_, rset, vrfy
from protocols.smtp.commands.rcpt import rcpt
from protocols.smtp.commands.starttls import starttls
from protocols.smtp.model import Reply, Role
from protocols.smtp.state import Conversation

Word = Callable[[Conversation, bytes], Awaitable[Reply | list[Reply] | None]]

_COMMON: dict[str, Word] = {
    "MAIL": mail,
    "RCPT": rcpt,
    "DATA": data,
    "BDAT": bdat,
    "RSET": rset,
    "NOOP": noop,
    "QUIT": quit_,
    "VRFY": vrfy,
    "EXPN": expn,
    "HELP": help_,
    "STARTTLS": starttls,
    "AUTH": auth,
}

COMMANDS: dict[Role, dict[str, Word]] = {
    Role.MX: {"EHLO": ehlo, "HELO": helo, **_COMMON},
    Role.SUBMISSION: {"EHLO": ehlo, "HELO": helo, **_COMMON},
    Role.SUBMISSIONS: {"EHLO": ehlo, "HELO": helo, **_COMMON},
    # RFC 2033 §4.1: LHLO takes the place of EHLO and HELO.
    Role.LMTP: {"LHLO": lhlo, **_COMMON},
}
