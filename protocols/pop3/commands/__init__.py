"""Every word of the wire, and when it may be said (RFC 1939 §9)."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from protocols.pop3.commands.auth import auth
from protocols.pop3.commands.capa import capa
from protocols.pop3.commands.dele import dele
from protocols.pop3.commands.lang import lang
from protocols.pop3.commands.listing import listing
from protocols.pop3.commands.noop import noop
from protocols.pop3.commands.quit import quit
from protocols.pop3.commands.retr import retr
from protocols.pop3.commands.rset import rset
from protocols.pop3.commands.stat import stat
from protocols.pop3.commands.stls import stls
from protocols.pop3.commands.top import top
from protocols.pop3.commands.uidl import uidl
from protocols.pop3.commands.user import password, user
from protocols.pop3.commands.utf8 import utf8
from protocols.pop3.commands.xclient import xclient
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk, When


class Word(NamedTuple):
    """`run`: given the argument; the answer, or None where it was put already."""

    run: Callable[[Talk, bytes], Awaitable[Reply | None]]
    when: When


COMMANDS: dict[str, Word] = {
    "AUTH": Word(auth, When.AUTHORIZATION),
    "CAPA": Word(capa, When.ALWAYS),
    "DELE": Word(dele, When.TRANSACTION),
    "LANG": Word(lang, When.ALWAYS),
    "LIST": Word(listing, When.TRANSACTION),
    "NOOP": Word(noop, When.TRANSACTION),
    "PASS": Word(password, When.AUTHORIZATION),
    "QUIT": Word(quit, When.ALWAYS),
    "RETR": Word(retr, When.TRANSACTION),
    "RSET": Word(rset, When.TRANSACTION),
    "STAT": Word(stat, When.TRANSACTION),
    "STLS": Word(stls, When.AUTHORIZATION),
    "TOP": Word(top, When.TRANSACTION),
    "UIDL": Word(uidl, When.TRANSACTION),
    "USER": Word(user, When.AUTHORIZATION),
    "UTF8": Word(utf8, When.AUTHORIZATION),
    "XCLIENT": Word(xclient, When.AUTHORIZATION),
}
