"""A worker that serves nobody: it keeps the promises that the supervisor asks of one, and says on its output what it
was told, in the shape of the supervisor's own lines.

Run as `python -m tests.contracts.supervised_worker DIR --index i --ready-fd fd`.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from node.config import DATABASE_SOCKET_NAME, load
from node.engines import nats, postgres


async def serve(directory: Path, index: int, ready_fd: int) -> None:
    config = load(directory)

    def note(word: str) -> None:
        line = json.dumps({"part": f"worker-{index}", "what": word, "pid": os.getpid()})
        os.write(sys.stdout.fileno(), f"{line}\n".encode())  # in one piece: others write to the same pipe

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGHUP, note, "reloaded")
    database = config.database_socket_dir / DATABASE_SOCKET_NAME
    assert await nats.answers("127.0.0.1", config.ports.nats, config.nats.user, config.nats.password)
    assert await postgres.answers(database)
    note("started")
    os.write(ready_fd, b"ready\n")
    os.close(ready_fd)
    await stop.wait()
    # Draining needs the engines: they must outlive the workers.
    log = await nats.answers("127.0.0.1", config.ports.nats, config.nats.user, config.nats.password)
    tables = await postgres.answers(database)
    note("drained" if log and tables else "stranded")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.directory, options.index, options.ready_fd))


if __name__ == "__main__":
    main()
