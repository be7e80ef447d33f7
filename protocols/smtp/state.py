"""What one conversation remembers, and which words are allowed when (RFC 5321 §4.1.4)."""

import ssl
from collections.abc import Callable
from typing import NamedTuple

from cluster.domain.actor import Actor
from protocols.port import Account, Recipient, Site
from protocols.smtp.content import Incoming
from protocols.smtp.model import Path, Reply, Role
from protocols.smtp.paths import written_address
from protocols.smtp.settings import Settings
from protocols.smtp.wire import Wire


class Accepted(NamedTuple):
    """A recipient that was answered with 250: as it was written, and where it leads."""

    address: str
    recipient: Recipient


class Transaction:
    """From MAIL to the end of the message. `id`: in trace fields and logs, and what makes a repeated delivery one. `size`: as
    SIZE declared it, 0 = not."""

    def __init__(self, id: int, sender: Path, smtputf8: bool, size: int = 0) -> None:
        self.id = id
        self.size = size
        self.sender = sender
        self.smtputf8 = smtputf8
        self.recipients: list[Accepted] = []
        self.incoming: Incoming | None = None
        self.chunked = False

    @property
    def sender_address(self) -> str:
        return written_address(self.sender)

    def close(self) -> None:
        if self.incoming is not None:
            self.incoming.abandon()
            self.incoming = None


class Conversation:
    def __init__(
        self, site: Site, settings: Settings, role: Role, wire: Wire, tls_context: Callable[[], ssl.SSLContext] | None
    ) -> None:
        self.site = site
        self.settings = settings
        self.role = role
        self.wire = wire
        self.tls_context = tls_context
        self.peer = wire.peer
        self.trusted = settings.trusts(self.peer)
        self.session = f"{site.world.new_id():016x}"
        self.hello = ""
        self.extended = False  # greeted with EHLO or LHLO
        self.account: Account | None = None
        self.transaction: Transaction | None = None
        self.auth_failures = 0
        self.bad_commands = 0
        self.closing = False
        self._opened_at = site.world.monotonic()

    @property
    def may_sign_in(self) -> bool:
        """RFC 4954 §4, RFC 8314 §3.3: under TLS only, but for networks that the operator named."""
        return self.role.signs_in and (self.wire.secured or self.trusted)

    def patience_s(self) -> float:
        """How long the next command is waited for. Who ought to sign in has not for ever to do so."""
        settings = self.settings
        if not self.role.signs_in or self.account is not None:
            return settings.command_s_max
        left = self._opened_at + settings.sign_in_s_max - self.site.world.monotonic()
        return max(min(settings.command_s_max, left), 0.0)

    def actor(self) -> Actor:
        account = self.account
        return Actor(
            name=account.address if account else "outside",
            account=account.id if account else 0,
            administrator=account.administrator if account else False,
            site=self.site.name,
            protocol="lmtp" if self.role is Role.LMTP else "smtp",
            address=self.peer,
            session=self.session,
        )

    def reset(self) -> None:
        """RFC 5321 §4.1.1.5: the transaction is forgotten, the greeting and the account are not."""
        if self.transaction is not None:
            self.transaction.close()
            self.transaction = None

    def forget(self) -> None:
        """RFC 3207 §4.2: nothing that was learned before the handshake counts after it."""
        self.reset()
        self.hello, self.extended, self.account = "", False, None


GREET_FIRST = Reply(503, "5.5.1", ("Say EHLO first",))
LHLO_FIRST = Reply(503, "5.5.1", ("Say LHLO first",))
SIGN_IN_FIRST = Reply(530, "5.7.0", ("Sign in first",))
MAIL_FIRST = Reply(503, "5.5.1", ("Say MAIL first",))
RCPT_FIRST = Reply(503, "5.5.1", ("Say RCPT first; no recipient was accepted",))
NESTED = Reply(503, "5.5.1", ("A transaction is under way; say RSET first",))
CHUNKS_ONLY = Reply(503, "5.5.1", ("BDAT was begun; go on with BDAT",))

GREETED, SIGNED_IN, NO_MAIL, MAIL, RCPT, NO_CHUNKS = "greeted", "signed in", "no mail", "mail", "rcpt", "no chunks"

# Which words need what; the rest may come at any time.
NEEDS: dict[str, tuple[str, ...]] = {
    "MAIL": (GREETED, SIGNED_IN, NO_MAIL),
    "RCPT": (GREETED, SIGNED_IN, MAIL, NO_CHUNKS),
    "DATA": (GREETED, SIGNED_IN, MAIL, RCPT, NO_CHUNKS),
    "BDAT": (GREETED, SIGNED_IN, MAIL, RCPT),
    "AUTH": (GREETED, NO_MAIL),
}


def out_of_turn(talk: Conversation, verb: str) -> Reply | None:
    """The refusal of a word that may not come now; None where it may."""
    for need in NEEDS.get(verb, ()):
        transaction = talk.transaction
        if need == GREETED and not talk.hello:
            return LHLO_FIRST if talk.role is Role.LMTP else GREET_FIRST
        if need == SIGNED_IN and talk.role.signs_in and talk.account is None:
            return SIGN_IN_FIRST
        if need == NO_MAIL and transaction is not None:
            return NESTED
        if need == MAIL and transaction is None:
            return MAIL_FIRST
        # RFC 2033 §4.2: with no recipient accepted, LMTP's DATA fails with 503 as well.
        if need == RCPT and (transaction is None or not transaction.recipients):
            return RCPT_FIRST
        if need == NO_CHUNKS and transaction is not None and transaction.chunked:
            return CHUNKS_ONLY
    return None
