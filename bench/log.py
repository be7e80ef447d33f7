"""How fast the log takes appends: `python bench/log.py [seconds each]`. A nats-server of its own with every write on
disk, the appender in one process and the asking worker in this one; each append is an event of 600 bytes and 10 KB of
content. Prints rates and latencies for 1, 10 and 100 in flight, then what a follower reads."""

import asyncio
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from cluster.log.jetstream import JetStreamLog
from cluster.log.model import Append, Blob, NewEvent, Stored
from cluster.position import BEGINNING
from tests.contracts.engines import PASSWORD, USER, NatsServer

P = "bench"
HEAD = b"From: anna@example.org\r\nSubject: minutes of the meeting\r\n\r\n"


def mail(n: int) -> Blob:
    """10 KB that shrink about as mail does."""
    data = HEAD + b"%d" % n + os.urandom(2500).hex().encode() + b"as we said before, " * 260
    return Blob(hashlib.sha256(data).digest(), data[:10_000])


def cpu_of(pids: list[int]) -> list[float]:
    return [sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids]


async def measured(log: JetStreamLog, in_flight: int, seconds: float, others: list[int]) -> None:
    """`others`: processes whose CPU is shown beside ours (the engine, then the appender if that is not here)."""
    blobs = [mail(n) for n in range(50)]
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def one(n: int) -> None:
        while (before := time.perf_counter()) < until:
            event = NewEvent("mailbox", str(n), os.urandom(600), (f"messages/{n}",))
            outcome = await log.append(Append(P, os.urandom(16), (event,), contents=(blobs[len(took) % 50],)))
            assert isinstance(outcome, Stored)
            took.append(time.perf_counter() - before)

    pids = [os.getpid(), *others]
    cpu = cpu_of(pids)
    started = time.perf_counter()
    await asyncio.gather(*(one(n) for n in range(in_flight)))
    spent = time.perf_counter() - started
    took.sort()
    each = " + ".join(f"{(now - then) / len(took) * 1e6:.0f}" for now, then in zip(cpu_of(pids), cpu, strict=True))
    print(
        f"  {in_flight:4} in flight: {len(took) / spent:7.0f}/s   p50 {took[len(took) // 2] * 1e3:6.2f} ms   "
        f"p99 {took[len(took) * 99 // 100] * 1e3:6.2f} ms   CPU {each} µs an append",
        flush=True,
    )


async def read(log: JetStreamLog, contents: bool) -> None:
    upto, count, size = await log.mark(P), 0, 0
    started = time.perf_counter()
    async for batch in log.read(P, BEGINNING, upto, contents=contents):
        count += len(batch)
        size += sum(len(record.payload) for record in batch)
    spent = time.perf_counter() - started
    print(
        f"  read {'all' if contents else 'events only'}: {count / spent:7.0f} records/s, {size / spent / 1e6:5.0f} MB/s"
    )


async def home(url: str) -> None:
    log = JetStreamLog(url, USER, PASSWORD, node_id="home", site="bench")
    await log.start()
    log.lead(P)
    await log.leading(P)
    print("leading", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await log.stop()


async def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        server = NatsServer(Path(folder))
        server.start()
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "home", server.url, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert process.stdout is not None and process.stdin is not None
            while b"leading\n" != await process.stdout.readline():
                pass
            log = JetStreamLog(server.url, USER, PASSWORD, node_id="worker", site="bench")
            await log.start()
            print("appender in another process (CPU: worker + engine + appender):")
            for in_flight in (1, 10, 100):
                await measured(log, in_flight, seconds, [server.pid, process.pid])
            process.stdin.close()
            await process.wait()
            log.lead(P)
            started = time.perf_counter()
            await log.leading(P)
            print(f"appender in this process (took over in {time.perf_counter() - started:.2f} s; CPU: it + engine):")
            for in_flight in (1, 10, 100):
                await measured(log, in_flight, seconds, [server.pid])
            for contents in (False, True):
                await read(log, contents)
            await log.stop()
        finally:
            if process.returncode is None:
                process.kill()
            server.stop()


if __name__ == "__main__":
    if sys.argv[1:2] == ["home"]:
        uvloop.run(home(sys.argv[2]))
    else:
        uvloop.run(main(float(sys.argv[1]) if sys.argv[1:] else 3.0))
