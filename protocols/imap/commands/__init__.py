"""Every word of IMAP, what it does and when it is allowed. APPEND and REPLACE are not here: the parser streams them (see session.py)."""

from collections.abc import Awaitable, Callable

import msgspec

from protocols.imap.arguments import ARGUMENTS
from protocols.imap.commands.acl import get_acl, list_rights, my_rights, set_acl
from protocols.imap.commands.authenticate import authenticate
from protocols.imap.commands.cancelupdate import cancel_update
from protocols.imap.commands.capability import capability
from protocols.imap.commands.close import close, unselect
from protocols.imap.commands.compress import compress
from protocols.imap.commands.copy import copy
from protocols.imap.commands.create import create, delete, rename
from protocols.imap.commands.enable import enable
from protocols.imap.commands.expunge import expunge
from protocols.imap.commands.fetch import fetch
from protocols.imap.commands.identify import identify
from protocols.imap.commands.idle import idle
from protocols.imap.commands.listing import listing, lsub
from protocols.imap.commands.login import login
from protocols.imap.commands.logout import logout
from protocols.imap.commands.metadata import get_metadata, set_metadata
from protocols.imap.commands.multisearch import multisearch
from protocols.imap.commands.namespace import namespace
from protocols.imap.commands.noop import check, noop
from protocols.imap.commands.notify import notify
from protocols.imap.commands.quota import getquota, getquotaroot, setquota
from protocols.imap.commands.search import search
from protocols.imap.commands.select import select
from protocols.imap.commands.sort import sort, thread
from protocols.imap.commands.starttls import starttls
from protocols.imap.commands.status import status
from protocols.imap.commands.store import store
from protocols.imap.commands.subscribe import subscribe
from protocols.imap.commands.unauthenticate import unauthenticate
from protocols.imap.model import Reply, Request
from protocols.imap.state import Talk, When

Run = Callable[[Talk, Request], Awaitable[Reply | None]]


class Word(msgspec.Struct, frozen=True):
    """`run` gives the tagged reply, or None if it has sent it.

    `expunges`: EXPUNGE may be told with it (RFC 9051 §7.5.1: not while FETCH, STORE or SEARCH are answered, as the client
    counts by sequence numbers then; UID commands are others). `asks`: the site is asked for news when it ends; those that
    only read, and come by the thousand, trust the watch on the mailbox. `names_messages`: by numbers or UIDs, so that the
    view must be whole. `counts`: by sequence numbers. `tells`: what is new is what it asks for or does, and is told also to who
    wants no events of the selected mailbox (RFC 5465 §3.1)."""

    run: Run
    when: When
    expunges: bool = True
    asks: bool = True
    names_messages: bool = False
    counts: bool = False
    tells: bool = False


COMMANDS: dict[str, Word] = {
    "CAPABILITY": Word(capability, When.ALWAYS, asks=False),
    "NOOP": Word(noop, When.ALWAYS, tells=True),
    "LOGOUT": Word(logout, When.ALWAYS),
    "ID": Word(identify, When.ALWAYS, asks=False),
    "STARTTLS": Word(starttls, When.NOT_AUTHENTICATED),
    "AUTHENTICATE": Word(authenticate, When.NOT_AUTHENTICATED),
    "LOGIN": Word(login, When.NOT_AUTHENTICATED),
    "COMPRESS": Word(compress, When.SIGNED_IN, asks=False),
    "UNAUTHENTICATE": Word(unauthenticate, When.SIGNED_IN),
    "ENABLE": Word(enable, When.AUTHENTICATED),  # RFC 9051 §6.3.1: before a mailbox is selected
    "SELECT": Word(select, When.SIGNED_IN),
    "EXAMINE": Word(select, When.SIGNED_IN),
    "CREATE": Word(create, When.SIGNED_IN),
    "DELETE": Word(delete, When.SIGNED_IN),
    "RENAME": Word(rename, When.SIGNED_IN),
    "SUBSCRIBE": Word(subscribe, When.SIGNED_IN),
    "UNSUBSCRIBE": Word(subscribe, When.SIGNED_IN),
    "LIST": Word(listing, When.SIGNED_IN, asks=False),
    "LSUB": Word(lsub, When.SIGNED_IN, asks=False),
    "NAMESPACE": Word(namespace, When.SIGNED_IN, asks=False),
    "GETQUOTA": Word(getquota, When.SIGNED_IN, asks=False),
    "GETQUOTAROOT": Word(getquotaroot, When.SIGNED_IN, asks=False),
    "SETQUOTA": Word(setquota, When.SIGNED_IN, asks=False),
    "SETACL": Word(set_acl, When.SIGNED_IN),
    "DELETEACL": Word(set_acl, When.SIGNED_IN),
    "GETACL": Word(get_acl, When.SIGNED_IN),
    "LISTRIGHTS": Word(list_rights, When.SIGNED_IN, asks=False),
    "MYRIGHTS": Word(my_rights, When.SIGNED_IN),
    "GETMETADATA": Word(get_metadata, When.SIGNED_IN, asks=False),
    "SETMETADATA": Word(set_metadata, When.SIGNED_IN, asks=False),
    "STATUS": Word(status, When.SIGNED_IN, asks=False),
    "IDLE": Word(idle, When.SIGNED_IN),
    "NOTIFY": Word(notify, When.SIGNED_IN, tells=True),  # RFC 5465 §3.1: it is a NOOP too
    "CHECK": Word(check, When.SELECTED, tells=True),
    "CLOSE": Word(close, When.SELECTED),
    "UNSELECT": Word(unselect, When.SELECTED),
    "EXPUNGE": Word(expunge, When.SELECTED, names_messages=True, tells=True),
    "UID EXPUNGE": Word(expunge, When.SELECTED, names_messages=True, tells=True),
    "SEARCH": Word(search, When.SELECTED, expunges=False, asks=False, names_messages=True, counts=True),
    "UID SEARCH": Word(search, When.SELECTED, asks=False, names_messages=True),
    # RFC 5256 §3: as for SEARCH
    "SORT": Word(sort, When.SELECTED, expunges=False, asks=False, names_messages=True, counts=True),
    "UID SORT": Word(sort, When.SELECTED, asks=False, names_messages=True),
    "THREAD": Word(thread, When.SELECTED, expunges=False, asks=False, names_messages=True, counts=True),
    "UID THREAD": Word(thread, When.SELECTED, asks=False, names_messages=True),
    "CANCELUPDATE": Word(cancel_update, When.SELECTED, asks=False),
    "ESEARCH": Word(multisearch, When.SIGNED_IN, asks=False, names_messages=True),
    "FETCH": Word(fetch, When.SELECTED, expunges=False, asks=False, names_messages=True, counts=True),
    "UID FETCH": Word(fetch, When.SELECTED, asks=False, names_messages=True),
    "STORE": Word(store, When.SELECTED, expunges=False, names_messages=True, counts=True),
    "UID STORE": Word(store, When.SELECTED, names_messages=True),
    "COPY": Word(copy, When.SELECTED, names_messages=True, counts=True, tells=True),
    "UID COPY": Word(copy, When.SELECTED, names_messages=True, tells=True),
    "MOVE": Word(copy, When.SELECTED, names_messages=True, counts=True, tells=True),
    "UID MOVE": Word(copy, When.SELECTED, names_messages=True, tells=True),
}

assert set(COMMANDS) == set(ARGUMENTS), f"unlike tables: {set(COMMANDS) ^ set(ARGUMENTS)}"
