"""A process that leads a partition and appends to it without end, telling each outcome on a line: for tests that stop,
freeze or kill it. Arguments: url, node, partition."""

import asyncio
import os
import sys

from cluster.log.jetstream import JetStreamLog
from cluster.log.model import Append, LogUnavailable, NewEvent, Stored
from tests.contracts.engines import PASSWORD, USER

WRITERS = 8


async def write(log: JetStreamLog, node: str, partition: str, writer: int) -> None:
    n = 0
    while True:
        n += 1
        payload = f"{node}/{writer}/{n}".encode()
        append = Append(partition, os.urandom(16), (NewEvent("mailbox", str(writer), payload),))
        try:
            outcome = await log.append(append, timeout_s=20)
        except LogUnavailable:
            continue
        assert isinstance(outcome, Stored)
        print("stored", payload.decode(), outcome.last, flush=True)


async def main(url: str, node: str, partition: str) -> None:
    log = JetStreamLog(url, USER, PASSWORD, node_id=node, site="north")
    await log.start()
    log.lead(partition)
    async with asyncio.TaskGroup() as group:
        for writer in range(WRITERS):
            group.create_task(write(log, node, partition, writer))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
