"""One worker: a whole site in one process, with a listener for each language. Started by the supervisor.

python -m node.worker DIR --index N --ready-fd FD
"""

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import structlog
import uvloop

from cluster.log.model import LogUnavailable
from node import logs, relay
from node.assembly import assembled
from node.carrying import Sites
from node.config import Config, load
from node.first_start import FirstStartFailed, first_start
from node.listeners import Listeners
from node.management import Management
from node.membership import NO_MEMBER, is_shut_out
from node.memory import collect_less_often, give_back_large_pieces
from node.tls import Certificates
from node.world import SystemWorld

log = structlog.get_logger("worker")


async def serve(config: Config, index: int, ready_fd: int | None) -> None:
    """Until SIGTERM, which during the start cancels it (CancelledError)."""
    starting = asyncio.current_task()
    assert starting is not None
    _on_stop(starting.cancel)
    certificates = Certificates(config.tls.certificate, config.tls.key)
    sites = Sites(config, config.backbone) if config.backbone is not None else None

    def reload() -> None:
        certificates.reload()
        if sites is not None:
            sites.reload()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    async with assembled(config, SystemWorld(), f"{config.site}-{index}") as parts:
        await first_start(parts)
        management = Management(parts)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(management.run(), name="measure"),
                group.create_task(relay.run(parts), name="relay"),
            ]
            listeners = Listeners(parts, certificates, sites, management)
            try:
                await listeners.start()
                stop = asyncio.Event()
                _on_stop(stop.set)
                collect_less_often()
                _say_ready(ready_fd)
                log.info("serving", index=index)
                await stop.wait()
                log.info("stopping", index=index)
            finally:
                await listeners.stop()
                for task in tasks:
                    task.cancel()


def _on_stop(do: Callable[[], object]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, do)


def _say_ready(descriptor: int | None) -> None:
    if descriptor is not None:
        os.write(descriptor, b"ready\n")
        os.close(descriptor)


def _open_as_many_files_as_may_be() -> None:
    """Each session is one; shells and containers begin with 1,024 and allow more to who asks."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some systems say "no limit" and mean another number
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    parser = argparse.ArgumentParser(prog="node.worker")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--ready-fd", type=int)
    options = parser.parse_args()
    give_back_large_pieces()
    _open_as_many_files_as_may_be()
    config = load(options.directory)
    logs.set_up(config.log_level, config.log_format)
    structlog.contextvars.bind_contextvars(site=config.site, worker=options.index)
    if is_shut_out(config):
        log.error("the worker does not start", why=NO_MEMBER)
        sys.exit(1)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            uvloop.run(serve(config, options.index, options.ready_fd))
    except (LogUnavailable, TimeoutError, FirstStartFailed, ssl.SSLError, OSError) as error:
        log.error("the worker cannot start", error=f"{type(error).__name__}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
