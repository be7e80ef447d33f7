"""What a conversation remembers, and which words are allowed when (RFC 9051 §3)."""

import asyncio
import ssl
from collections.abc import Sequence
from contextlib import AsyncExitStack
from enum import IntFlag
from typing import Protocol

from cluster.domain.actor import Actor
from cluster.domain.mailbox import rights
from cluster.domain.mailbox.events import DELETED, SEEN, Ranges
from cluster.domain.mailbox.sharing import WRITTEN
from cluster.domain.refusal import Refusal
from protocols.carrying import Carried
from protocols.imap import writer
from protocols.imap.deflate import Deflate, DeflateBroken
from protocols.imap.model import Line, NeedMore, Parsed, SyntaxRefused
from protocols.imap.parser import Parser
from protocols.imap.settings import Settings
from protocols.imap.view import View
from protocols.port import Account, Flags, Site, Watch
from protocols.wire import Wire, WireClosed

FLUSH_BYTES = 256 * 1024


class When(IntFlag):
    """The states of RFC 9051 §3; a word is allowed in some of them."""

    NOT_AUTHENTICATED = 1
    AUTHENTICATED = 2
    SELECTED = 4
    SIGNED_IN = 6
    ALWAYS = 7


class Searching(Protocol):
    """A search that goes on (contexts.py)."""

    def lost(self, gone: Ranges) -> None: ...

    async def changed(self, uids: Sequence[int]) -> bool: ...


class Noticing(Protocol):
    """What the client wants to be told at any time (notices.py, RFC 5465). `silent`: nothing of the selected mailbox; `flags`: its
    changes of flags too; `at_once`: what is expunged there without waiting for a command that allows it."""

    silent: bool
    flags: bool
    at_once: bool

    def came(self, view: View, uids: Sequence[int]) -> None: ...

    @property
    def rolled_back(self) -> bool: ...

    async def tell(self) -> None: ...

    async def close(self) -> None: ...


class Talk:
    """One client's conversation. `told`: MODSEQ of the flags that this command's own replies showed, by UID.
    `closing`: after this reply the connection ends. `introducer`: the site that carries the session to here, empty = it is
    the client's own connection. `peer`: the client's address. `carried`: to where this one carries it. `deflate`:
    compression is on. `bell`: rung when anything happened of what is watched. `notices`: None before the first NOTIFY."""

    def __init__(
        self, site: Site, settings: Settings, wire: Wire, *, secure: bool, session: str, introducer: str = ""
    ) -> None:
        self.site, self.settings, self.wire = site, settings, wire
        self.parser = Parser(settings.limits)
        self.secure = secure
        # Of the certificate that this handshake showed: a new one may be read while the session lasts.
        self.end_point = settings.end_point() if secure and not introducer else b""
        self.trusted = settings.allows_plaintext(wire.peer)
        self.session = session
        self.introducer = introducer
        self.deflate: Deflate | None = None
        self.peer = wire.peer
        self.carried: Carried | None = None
        self.account: Account | None = None
        self.view: View | None = None
        self.behind = False  # the view lacks something that the client may know of, by APPENDUID for one
        self._watch: Watch | None = None
        self._watching = AsyncExitStack()
        self.enabled: set[str] = set()
        self.contexts: dict[str, Searching] = {}  # by the tag of their search
        self.bell = asyncio.Event()
        self.notices: Noticing | None = None
        self.told: dict[int, int] = {}
        self.tries = self.bad_commands = 0
        self.warned = 0  # the highest threshold of the quota (percent) that the client was told of
        self.closing = False
        self._sign_in_until = site.world.monotonic() + settings.sign_in_s_max
        self._out: list[bytes] = []
        self._out_bytes = self._flushes = 0

    # -- who and where ---------------------------------------------------------------------------------------------------
    @property
    def when(self) -> When:
        if self.account is None:
            return When.NOT_AUTHENTICATED
        return When.SELECTED if self.view is not None else When.AUTHENTICATED

    @property
    def may_sign_in(self) -> bool:
        """Passwords are taken only under TLS, or from networks that the operator named; never at the door for sites."""
        return (self.secure or self.trusted) and not self.introducer

    @property
    def actor(self) -> Actor:
        account = self.account
        return Actor(
            name=account.address if account else "",
            account=account.id if account else 0,
            administrator=account.administrator if account else False,
            site=self.site.name,
            node=self.settings.node,
            protocol="imap",
            address=self.peer,
            session=self.session,
        )

    def who(self) -> int:
        """The account's id, of somebody signed in."""
        assert self.account is not None
        return self.account.id

    def mailbox(self) -> View:
        """The selected mailbox's view, in the selected state."""
        assert self.view is not None
        return self.view

    # -- what was enabled --------------------------------------------------------------------------------------------------
    @property
    def revision_2(self) -> bool:
        return "IMAP4REV2" in self.enabled

    @property
    def condstore(self) -> bool:
        return "CONDSTORE" in self.enabled

    @property
    def resync(self) -> bool:
        return "QRESYNC" in self.enabled

    @property
    def uid_only(self) -> bool:
        """RFC 9586 §3: no sequence number is said or understood."""
        return "UIDONLY" in self.enabled

    @property
    def utf8(self) -> bool:
        """Names and strings in UTF-8 (RFC 9051 §5.1, RFC 9755 §3)."""
        return self.revision_2 or "UTF8=ACCEPT" in self.enabled

    def enable(self, *words: str) -> None:
        self.enabled.update(words)
        if "QRESYNC" in words:
            self.enabled.add("CONDSTORE")  # RFC 7162 §3.2.3
        self.parser.names_utf8 = self.utf8

    def sign_out(self) -> None:
        """RFC 8437 §3: all is as in the beginning, but for TLS and what went wrong."""
        assert self.view is None and self.notices is None
        self.account = None
        self._sign_in_until = self.site.world.monotonic() + self.settings.sign_in_s_max
        self.warned = 0
        self.enabled.clear()
        self.told.clear()
        self.parser.names_utf8 = False

    def stop_deflating(self) -> None:
        """RFC 8437 §4.1: both directions are plain again, the client's from behind its last command on."""
        if self.deflate is None:
            return
        deflate, self.deflate = self.deflate, None
        self.wire.write(deflate.finish())
        if deflate.ended:
            self.parser.feed(deflate.behind)
        elif deflate.waiting or not self.parser.empty:
            self.say("BYE What was sent ahead is neither compressed nor plain: end the stream before.")
            self.closing = True

    # -- to the client -----------------------------------------------------------------------------------------------------
    def say(self, line: str | bytes) -> None:
        """An untagged response without its star, or a continuation with its plus. Sent with the next flush."""
        data = line.encode("ascii") if isinstance(line, str) else line
        self.put((b"" if data.startswith(b"+ ") else b"* ") + data + b"\r\n")

    def put(self, data: bytes) -> None:
        self._out.append(data)
        self._out_bytes += len(data)

    def mark(self) -> tuple[int, int]:
        """Here begins what may be taken back."""
        return self._flushes, len(self._out)

    def take_back(self, mark: tuple[int, int]) -> None:
        """Unsays what was put since the mark. Raises WireClosed if the client has some of it."""
        flushes, length = mark
        if flushes != self._flushes:
            self.wire.abort()
            raise WireClosed("half a response was sent, and the rest cannot be had")
        self._out_bytes -= sum(len(data) for data in self._out[length:])
        del self._out[length:]

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
            self._flushes += 1
            self.wire.write(data if self.deflate is None else self.deflate.deflate(data))
        await self.wire.drain(self.settings.write_s_max)

    def row(self, place: int, uid: int) -> str:
        """How a response about a message begins: FETCH, or UIDFETCH (RFC 9586 §3)."""
        return f"{uid} UIDFETCH" if self.uid_only else f"{place + 1} FETCH"

    def last_words(self, line: str) -> None:
        """Said at once, in place of what was not sent yet."""
        data = f"* {line}\r\n".encode("ascii")
        self.wire.write(data if self.deflate is None else self.deflate.deflate(data))

    def name(self, mailbox: str) -> bytes:
        return writer.mailbox(mailbox, self.utf8)

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Raises WireClosed."""
        end_point = self.settings.end_point()
        await self.wire.start_tls(context, self.settings.handshake_s_max)
        self.secure, self.end_point = True, end_point

    # -- from the client ---------------------------------------------------------------------------------------------------
    async def parsed(self) -> Parsed:
        """The next value of the parser, after reading as much as that needs. Raises SyntaxRefused, WireClosed, TimeoutError."""
        while isinstance(value := self.parser.next(), NeedMore):
            if value.invite:
                self.say("+ Go on.")
            await self.flush()
            await self.read()
        return value

    async def read(self) -> None:
        """Raises WireClosed, WireStopping, TimeoutError, SyntaxRefused. Cancelled, it loses nothing."""
        deflate = self.deflate
        if deflate is not None and (deflate.waiting or deflate.ended):
            await asyncio.sleep(0)  # what grows long keeps nobody else waiting
            self._inflate(deflate, b"")
            return
        data = await self.wire.read(self._patience_s())
        if not data:
            raise WireClosed("the peer is gone")
        if deflate is None:
            self.parser.feed(data)
        else:
            self._inflate(deflate, data)

    def _patience_s(self) -> float:
        """How long more is waited for. Who ought to sign in has not for ever to do so, whatever it says meanwhile."""
        if self.account is not None:
            return self.settings.idle_s_max
        return max(self._sign_in_until - self.site.world.monotonic(), 0.0)

    def _inflate(self, deflate: Deflate, data: bytes) -> None:
        if deflate.ended:
            raise WireClosed("the peer's compressed stream has ended")
        try:
            self.parser.feed(deflate.inflate(data))
        except DeflateBroken as error:
            raise SyntaxRefused(f"the compressed stream is broken ({error})", closing=True) from error

    async def ask(self, challenge: str) -> bytes:
        """One exchange of SASL: the client's line after `+ challenge`, still in base64."""
        self.parser.expect_line()
        self.say(f"+ {challenge}")
        line = await self.parsed()
        assert isinstance(line, Line)
        return line.data

    async def notice(self, notices: Noticing | None) -> None:
        """From now on this is told at any time, and nothing else."""
        before, self.notices = self.notices, notices
        if before is not None:
            await before.close()

    # -- the selected mailbox ----------------------------------------------------------------------------------------------
    async def open(self, view: View) -> None:
        """The mailbox is selected. What happened before it is watched is found by the poll that ends the command."""
        self._watch = await self._watching.enter_async_context(self.site.watch(view.account, view.mailbox, self.bell))
        self.view = view

    async def deselect(self) -> None:
        self.view = self._watch = None
        self.behind = False
        self.contexts.clear()
        await self._watching.aclose()

    async def rung(self, timeout_s: float) -> bool:
        """Waits until something happened of what is watched; False where nothing did in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.bell.wait()
        except TimeoutError:
            return False
        self.bell.clear()
        return True

    async def _news(self) -> bool:
        """Whether something happened in the selected mailbox since it was last asked."""
        assert self._watch is not None
        return await self._watch.wait(0)

    def ends(self) -> bool:
        """Whether the session must end, for what its client was shown of the mailbox may lie in a tail that was lost. Then
        it has said so: the client comes again, and learns what there is (RFC 9051 §7.1.5). So too where the site that
        carries it was shut out meanwhile."""
        if self.introducer and not self.closing and self.settings.site_of(self.wire.certificate) != self.introducer:
            self.say("BYE This door is for sites of the organisation.")
            self.closing = True
        fell = self._watch is not None and self._watch.rolled_back or self.notices is not None and self.notices.rolled_back
        if fell and not self.closing:
            self.say("BYE [UNAVAILABLE] The mailbox goes on from an earlier state; sign in again.")
            self.closing = True
        return self.closing

    async def moved(self) -> None:
        """If the mail is kept at other sites only by now, says so and ends: its client comes again, and is carried there."""
        if self.account is None or self.closing:
            return
        where = await self.site.elsewhere(self.account.id)
        if not where and self.view is not None and self.view.reader:
            where = await self.site.elsewhere(self.view.account)
        if where and not isinstance(where, Refusal):
            self.say("BYE [UNAVAILABLE] Your mail is kept at another site now; sign in again.")
            self.closing = True

    async def poll(self, *, expunges: bool, ask: bool = True) -> None:
        """Tells what happened in the selected mailbox since the client was last told. `expunges`: EXPUNGE is allowed now.
        `ask` False: the site is asked only if its watch has heard of something. Where it cannot say, the view is `behind`
        until a later poll."""
        view = self.view
        if view is None or self.ends():
            return
        if not ask and not self.behind and not await self._news():
            if expunges and view.untold:
                self._tell_lost(view)
            return
        if view.reader and not await self.may_go_on():
            return
        self.behind = True  # also where the question fails in a way that nobody foresaw
        changes = await self.site.changes(view.account, view.mailbox, view.modseq, reader=view.reader)
        self.behind = isinstance(changes, Refusal)
        if isinstance(changes, Refusal):
            await self.moved()
            return
        if changes.gone:
            # RFC 2180 §3.3: the mailbox was deleted under this session; there is nothing left that it could ask.
            self.say("BYE The selected mailbox was deleted.")
            self.closing = True
            return
        if changes.uidvalidity != view.uidvalidity:
            # RFC 9051 §2.3.1.1: it changes between sessions only.
            self.say("BYE [UNAVAILABLE] The mailbox has new UIDs; sign in again.")
            self.closing = True
            return
        view.lose(changes.vanished)
        for context in self.contexts.values():
            context.lost(changes.vanished)
        if expunges and view.untold:
            self._tell_lost(view)
        arrived = [row.uid for row in changes.changed if row.uid > view.last]
        if arrived:
            view.append(arrived)
            if self.notices is not None:
                self.notices.came(view, arrived)
            self.say(f"{len(view)} EXISTS")
            if not self.revision_2:
                # RFC 3501 §7.3.2; which messages are \Recent: ops/decisions/imap-recent.md
                self.say(f"{view.recent()} RECENT")
        new = set(arrived)
        fresh = {keyword for row in changes.changed for keyword in row.keywords} - view.keywords
        if fresh:
            view.keywords |= fresh
            self.say_flags(view)
        if self.notices is None or self.notices.flags:  # RFC 5465 §5.1: else nobody wants to know
            self._tell_flags(view, [row for row in changes.changed if row.uid not in new])
        await self._update([row.uid for row in changes.changed if not view.is_lost(row.uid)])
        view.modseq = max(view.modseq, changes.highestmodseq)

    def _tell_flags(self, view: View, changed: Sequence[Flags]) -> None:
        for row in changed:
            if self.told.get(row.uid) == row.modseq or view.is_lost(row.uid):
                continue
            place = view.place(row.uid)
            if place is not None:
                flags = writer.flags(row.flags, row.keywords, self.shows_recent(row.uid))
                # RFC 7162 §3.2: with CONDSTORE every FETCH response has the MODSEQ
                modseq = f" MODSEQ ({row.modseq})" if self.condstore else ""
                self.say(f"{self.row(place, row.uid)} (UID {row.uid} FLAGS ({flags}){modseq})")

    async def _update(self, changed: Sequence[int]) -> None:
        """RFC 5267 §4.3: what the searches that go on make of it."""
        for tag, context in list(self.contexts.items()) if changed else ():
            if not await context.changed(changed):
                del self.contexts[tag]
                self.say(f'NO [NOUPDATE "{tag}"] What changes of it is not told any more.')

    async def may_go_on(self) -> bool:
        """Of another's selected mailbox: what may be done there now (RFC 4314 §5.1.1). Who may not read it any more is told BYE;
        False then, and where that cannot be said."""
        view = self.mailbox()
        now = await self.site.rights(self.who(), view.account, view.mailbox)
        if isinstance(now, Refusal):
            self.behind = True
            return False
        if rights.READ not in now:
            if not self.closing:
                self.say("BYE The selected mailbox may not be read any more.")
            self.closing = True
            return False
        if now != view.rights:
            was = view.read_only
            view.rights = now
            self.say_flags(view)
            if view.read_only != was:
                # RFC 9051 §7.1
                self.say(f"OK [{'READ-ONLY' if view.read_only else 'READ-WRITE'}] What you may do here has changed.")
        return True

    def shows_recent(self, uid: int) -> bool:
        """RFC 9051 §A: revision 2 has no \\Recent."""
        return self.view is not None and uid >= self.view.recent_from and not self.revision_2

    def say_flags(self, view: View) -> None:
        """FLAGS and PERMANENTFLAGS (RFC 9051 §7.3.5, §7.1)."""
        known = writer.flags(31, sorted(view.keywords))
        self.say(f"FLAGS ({known})")
        may = ""
        if view.writable:
            # RFC 4314 §5.1.1: what this reader may change; RFC 9051 §7.1: \* means that new keywords can be made
            written = view.may(rights.WRITE)
            kept = (SEEN if view.may(rights.SEEN) else 0) | (DELETED if view.may(rights.DELETE_MESSAGES) else 0)
            may = writer.flags(kept | (WRITTEN if written else 0), sorted(view.keywords) if written else ())
            may = f"{may} \\*" if written else may
        self.say(f"OK [PERMANENTFLAGS ({may})] Flags that are kept.")

    def _tell_lost(self, view: View) -> None:
        numbers, uids = view.take_lost()
        if not uids:
            return
        if self.resync or self.uid_only:
            # RFC 7162 §3.2.10, RFC 9586 §3: VANISHED instead of EXPUNGE
            self.say(f"VANISHED {writer.numbers(uids)}")
        else:
            self.put("".join([f"* {number} EXPUNGE\r\n" for number in numbers]).encode("ascii"))
