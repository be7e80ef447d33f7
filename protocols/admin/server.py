"""Listens: plain HTTP and HTTPS, the same application behind both."""

import ssl

from aiohttp import web

SHUTDOWN_S_MAX = 5.0
IDLE_S_MAX = 75.0


class Server:
    """A started server. `http_port` and `https_port`: where it listens really (0 = not at all)."""

    def __init__(self, runner: web.AppRunner, http_port: int, https_port: int) -> None:
        self._runner = runner
        self.http_port = http_port
        self.https_port = https_port

    async def stop(self) -> None:
        """Takes nothing new, ends the streams, lets the requests in hand be answered."""
        await self._runner.cleanup()


async def start(
    app: web.Application, host: str, http_port: int | None, https_port: int | None, tls: ssl.SSLContext | None
) -> Server:
    """Listens on `host`; None = not; 0 = a free port. Several workers may share a port (SO_REUSEPORT). A certificate that
    is loaded into `tls` later serves new connections. Raises OSError where a port is taken."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S_MAX, keepalive_timeout=IDLE_S_MAX)
    await runner.setup()
    try:
        plain = await _listen(runner, host, http_port, None)
        secure = await _listen(runner, host, https_port, tls) if tls is not None else 0
    except OSError:
        await runner.cleanup()
        raise
    return Server(runner, plain, secure)


async def _listen(runner: web.AppRunner, host: str, port: int | None, tls: ssl.SSLContext | None) -> int:
    if port is None:
        return 0
    before = len(runner.addresses)
    await web.TCPSite(runner, host, port, ssl_context=tls, reuse_port=port != 0).start()
    return int(runner.addresses[before][1])
