"""Listening, and the sessions of one language in one worker: how they begin, and how they end when it stops."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from protocols.tls import Tls
from protocols.wire import Wire

GOODBYE_S_MAX = 5
SESSION_ID_BYTES = 6


class Sessions:
    """`listen_with` as often as there are ports; `close` once. `language`: for the log. `backlog`: connections that wait to be
    taken."""

    def __init__(self, language: str, backlog: int, handshake_s_max: float) -> None:
        self._log = structlog.get_logger(language)
        self._backlog, self._handshake_s_max = backlog, handshake_s_max
        self._servers: list[asyncio.Server] = []
        self._sessions: dict[asyncio.Task[None], Wire] = {}

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    @property
    def port(self) -> int:
        """Of the first listener: where port 0 has led to."""
        return int(self._servers[0].sockets[0].getsockname()[1])

    async def listen_with(
        self, door: Callable[[], Wire], host: str, port: int, context: ssl.SSLContext | None, *, reuse_port: bool
    ) -> asyncio.Server:
        """`context`: of TLS from the first byte on, into which a new certificate may be loaded while it serves. Raises OSError
        where the port is taken."""

        def over_tls() -> Tls:
            assert context is not None
            return Tls(door(), context, self._handshake_s_max)

        server = await asyncio.get_running_loop().create_server(
            door if context is None else over_tls, host, port, reuse_port=reuse_port, backlog=self._backlog
        )
        self._servers.append(server)
        return server

    def begin(self, wire: Wire, session: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(session)
        self._sessions[task] = wire
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        del self._sessions[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("session ended badly", error=repr(error))

    async def close(self) -> None:
        """No new connections; each session finishes the command that it is at and says good-bye as its language has it, within
        GOODBYE_S_MAX. Returns when all have ended."""
        for server in self._servers:
            server.close()
        sessions = dict(self._sessions)
        for wire in sessions.values():
            wire.stop()
        if sessions:
            _, late = await asyncio.wait(sessions, timeout=GOODBYE_S_MAX)
            for task in late:
                task.cancel()  # without a word: it may be in the middle of a literal or a message
            if late:
                await asyncio.wait(late)
