"""What a conversation remembers, and which words are allowed when (RFC 1939 §3)."""

from contextlib import AsyncExitStack
from enum import IntFlag

from cluster.domain.actor import Actor
from protocols.carrying import Carried
from protocols.pop3 import writer
from protocols.pop3.maildrop import Maildrop
from protocols.pop3.model import Line, Reply, Request
from protocols.pop3.parser import Parser
from protocols.pop3.settings import Settings
from protocols.port import Account, Site, Watch
from protocols.wire import Wire, WireClosed

FLUSH_BYTES = 256 * 1024


class When(IntFlag):
    """The states of RFC 1939 §3 in which a client may speak."""

    AUTHORIZATION = 1
    TRANSACTION = 2
    ALWAYS = 3


class Talk:
    """One client's conversation. `user`: what USER said. `closing`: after this answer the connection ends. `introducer`: the
    site that carries the session to here, empty = it is the client's own connection. `peer`: the client's address. `carried`: to
    where this one carries it."""

    def __init__(
        self, site: Site, settings: Settings, wire: Wire, *, secure: bool, session: str, introducer: str = ""
    ) -> None:
        self.site, self.settings, self.wire = site, settings, wire
        self.parser = Parser()
        self.secure = secure
        self.peer = wire.peer
        self.trusted = settings.allows_plaintext(wire.peer)
        self.session = session
        self.introducer = introducer
        self.carried: Carried | None = None
        self.account: Account | None = None
        self.drop: Maildrop | None = None
        self.user: bytes | None = None
        self.tries = self.bad_commands = 0
        self.closing = False
        self._sign_in_until = site.world.monotonic() + settings.sign_in_s_max
        self._watch: Watch | None = None
        self._watching = AsyncExitStack()
        self._out: list[bytes] = []
        self._out_bytes = 0

    # -- who and where ---------------------------------------------------------------------------------------------------
    @property
    def when(self) -> When:
        return When.AUTHORIZATION if self.drop is None else When.TRANSACTION

    @property
    def may_sign_in(self) -> bool:
        """RFC 8314 §3: passwords are taken only under TLS, or from networks that the operator named; never at the door for
        sites."""
        return (self.secure or self.trusted) and not self.introducer

    @property
    def shut_out(self) -> bool:
        """The site that carries the session is none of ours any more."""
        return bool(self.introducer) and self.settings.site_of(self.wire.certificate) != self.introducer

    @property
    def actor(self) -> Actor:
        account = self.account
        return Actor(
            name=account.address if account else "",
            account=account.id if account else 0,
            administrator=account.administrator if account else False,
            site=self.site.name,
            node=self.settings.node,
            protocol="pop3",
            address=self.peer,
            session=self.session,
        )

    def maildrop(self) -> Maildrop:
        """In the TRANSACTION state."""
        assert self.drop is not None
        return self.drop

    # -- the mailbox -----------------------------------------------------------------------------------------------------
    async def watch(self, account: int) -> None:
        """From before the maildrop is looked at."""
        self._watch = await self._watching.enter_async_context(self.site.watch(account))

    @property
    def rolled_back(self) -> bool:
        """What was shown of the mailbox may lie in a tail that was lost: what it held of mail comes again with other UIDs, and
        to delete the old ones would delete nothing."""
        return self._watch is not None and self._watch.rolled_back

    async def end(self) -> None:
        self._watch = None
        await self._watching.aclose()

    # -- to the client -----------------------------------------------------------------------------------------------------
    def say(self, reply: Reply) -> None:
        self.put(writer.written(reply))

    def put(self, data: bytes) -> None:
        self._out.append(data)
        self._out_bytes += len(data)

    @property
    def full(self) -> bool:
        """Enough is waiting to be sent."""
        return self._out_bytes >= FLUSH_BYTES

    async def flush(self) -> None:
        """Sends what was said and waits for room. Raises WireClosed."""
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            self.wire.write(data)
        await self.wire.drain(self.settings.write_s_max)

    # -- from the client ---------------------------------------------------------------------------------------------------
    async def parsed(self) -> Request | Line:
        """The next value of the parser, after reading as much as that needs; what was said goes out before it waits. Raises
        SyntaxRefused, WireClosed, TimeoutError."""
        while (value := self.parser.next()) is None:
            await self.flush()
            data = await self.wire.read(self._patience_s())
            if not data:
                raise WireClosed("the peer is gone")
            self.parser.feed(data)
        return value

    def _patience_s(self) -> float:
        """How long more is waited for. Who ought to sign in has not for ever to do so, whatever it says meanwhile."""
        if self.account is not None:
            return self.settings.idle_s_max
        return max(self._sign_in_until - self.site.world.monotonic(), 0.0)

    async def ask(self, challenge: str) -> bytes:
        """One exchange of SASL (RFC 5034 §4), both in base64."""
        self.parser.expect_answer()
        self.put(writer.challenge(challenge))
        line = await self.parsed()
        assert isinstance(line, Line)
        return line.data
