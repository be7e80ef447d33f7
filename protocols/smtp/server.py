"""Listeners: who may connect, who owns the sessions, how they end."""

import asyncio
import os
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from protocols.port import Site
from protocols.smtp.model import Reply, Role
from protocols.smtp.session import STOPPING, serve
from protocols.smtp.settings import Settings
from protocols.smtp.state import Conversation
from protocols.smtp.wire import Wire

__all__ = ["Address", "Role", "Server", "Settings", "listen"]

BACKLOG = 512
SOCKET_MODE = 0o660
TOO_MANY = Reply(421, "4.3.2", ("Too many connections; come back soon",))
TOO_MANY_OF_YOU = Reply(421, "4.7.0", ("Too many connections from your address",))

Address = tuple[str, int] | Path


class Server:
    """One listener and its sessions. Made by `listen`."""

    def __init__(
        self, site: Site, settings: Settings, role: Role, tls_context: Callable[[], ssl.SSLContext] | None
    ) -> None:
        self._site = site
        self._settings = settings
        self._role = role
        self._tls_context = tls_context
        self._sessions: dict[asyncio.Task[None], Conversation] = {}
        self._peers: Counter[str] = Counter()
        self._listener: asyncio.Server | None = None
        self._path: Path | None = None
        self._stopping = False

    @property
    def connections(self) -> int:
        return len(self._sessions)

    @property
    def port(self) -> int:
        """Where it listens; 0 for a unix socket."""
        assert self._listener is not None
        name = self._listener.sockets[0].getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    async def start(self, address: Address, reuse_port: bool) -> None:
        loop = asyncio.get_running_loop()
        if isinstance(address, Path):
            address.unlink(missing_ok=True)
            self._listener = await loop.create_unix_server(self.protocol, str(address), backlog=BACKLOG)
            os.chmod(address, SOCKET_MODE)
            self._path = address
        else:
            host, port = address
            tls = self._implicit_tls()
            self._listener = await loop.create_server(
                self.protocol,
                host,
                port,
                ssl=tls,
                ssl_handshake_timeout=self._settings.handshake_s_max if tls else None,
                backlog=BACKLOG,
                reuse_port=reuse_port or None,
            )

    async def close(self) -> None:
        """No new sessions; idle ones are shown out at once, those amid a message may finish it within the grace time."""
        self._stopping = True
        if self._listener is not None:
            self._listener.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        for talk in self._sessions.values():
            talk.wire.stop()
        if self._sessions:
            await asyncio.wait(list(self._sessions), timeout=self._settings.grace_s_max)
        for task in list(self._sessions):
            task.cancel()
        if self._sessions:
            await asyncio.wait(list(self._sessions))

    def protocol(self) -> Wire:
        """For one more connection; it becomes a session when the event loop says `connection_made`."""
        return Wire(self._opened)

    def _implicit_tls(self) -> ssl.SSLContext | None:
        """RFC 8314 §3.3: TLS from the first byte on. Each handshake goes on with the certificate of its day."""
        asked = self._tls_context
        if self._role is not Role.SUBMISSIONS or asked is None:
            return None

        def renewed(session: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
            session.context = asked()

        context = asked()
        context.sni_callback = renewed
        return context

    def _opened(self, wire: Wire) -> None:
        talk = Conversation(self._site, self._settings, self._role, wire, self._tls_context)
        refusal = self._turned_away(talk)
        if refusal is not None:
            wire.send(refusal)
            wire.close()
            return
        self._peers[talk.peer] += 1
        task = asyncio.get_running_loop().create_task(serve(talk), name=f"smtp {talk.session}")
        self._sessions[task] = talk
        task.add_done_callback(self._ended)

    def _turned_away(self, talk: Conversation) -> Reply | None:
        if self._stopping:
            return STOPPING
        if len(self._sessions) >= self._settings.connections_max:
            return TOO_MANY
        if self._peers[talk.peer] >= self._settings.connections_per_peer_max and talk.peer and not talk.trusted:
            return TOO_MANY_OF_YOU
        return None

    def _ended(self, task: asyncio.Task[None]) -> None:
        talk = self._sessions.pop(task)
        self._peers[talk.peer] -= 1
        if not self._peers[talk.peer]:
            del self._peers[talk.peer]
        with suppress(asyncio.CancelledError):
            task.result()


async def listen(
    site: Site,
    settings: Settings,
    address: Address,
    *,
    role: Role,
    tls_context: Callable[[], ssl.SSLContext] | None = None,
    reuse_port: bool = False,
) -> Server:
    """A listener for `role` at (host, port) or a unix socket's path. `tls_context` is asked at each handshake, so that
    a new certificate counts from the next connection on; None = no TLS is offered (SUBMISSIONS needs one). Raises OSError."""
    if role is Role.SUBMISSIONS and tls_context is None:
        raise ValueError("submissions is TLS from its first byte on (RFC 8314 §3.3)")
    server = Server(site, settings, role, tls_context)
    await server.start(address, reuse_port)
    return server
