"""One worker: a whole site in one process, with a listener for each language. Started by the supervisor.

python -m node.worker DIR --index N --ready-fd FD
"""

import argparse
import asyncio
import os
import signal
import ssl
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import structlog
import uvloop

from cluster.log.model import LogUnavailable
from node import logs
from node.assembly import Assembly, assembled
from node.config import Config, load
from node.first_start import FirstStartFailed, first_start
from node.listeners import Listeners
from node.tls import Certificates
from node.world import SystemWorld

log = structlog.get_logger("worker")


async def serve(config: Config, index: int, ready_fd: int | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    certificates = Certificates(config.tls.certificate, config.tls.key)
    loop.add_signal_handler(signal.SIGHUP, certificates.reload)
    async with AsyncExitStack() as stack:
        parts = await _until(stop, stack, config, f"{config.site}-{index}")
        if parts is None:
            return
        await first_start(parts)
        listeners = Listeners(parts, certificates)
        stack.push_async_callback(listeners.stop)
        await listeners.start()
        log.info("serving", index=index)
        if ready_fd is not None:
            os.write(ready_fd, b"ready\n")
            os.close(ready_fd)
        await stop.wait()
        log.info("stopping", index=index)


async def _until(stop: asyncio.Event, stack: AsyncExitStack, config: Config, name: str) -> Assembly | None:
    """The site put together; None when it was told to stop before."""
    starting = asyncio.ensure_future(  # noqa: TID251  (raced against the signal, and awaited below)
        stack.enter_async_context(assembled(config, SystemWorld(), name))
    )
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.wait((starting,))
        return None
    stopped.cancel()
    return starting.result()


def main() -> None:
    parser = argparse.ArgumentParser(prog="node.worker")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--ready-fd", type=int)
    options = parser.parse_args()
    config = load(options.directory)
    logs.set_up(config.log_level, config.log_format)
    structlog.contextvars.bind_contextvars(site=config.site, worker=options.index)
    try:
        uvloop.run(serve(config, options.index, options.ready_fd))
    except (LogUnavailable, TimeoutError, FirstStartFailed, ssl.SSLError, OSError) as error:
        log.error("the worker cannot start", error=f"{type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
