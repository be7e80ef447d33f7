"""What is measured of three sites on this machine. Each figure gets an empty folder, starts the sites there, and stops them."""

import asyncio
import bisect
import itertools
import json
import re
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

from bench import machine
from bench.catching import catching_up
from bench.figures import MESSAGE_BYTES, Value, mail
from bench.place import PARTITION, Place, api, sessions, three, until
from bench.wire import Imap, Smtp
from tests.faults.site import Site
from tests.faults.test_sites import bases
from tests.live import CLI, REPOSITORY

RATES, OFFERED_S = (100, 200), 20  # messages a second; the goal is that of the last
FLAG_RATE, FLAGS_S = 100, 5
WARM_UP_S = 2
PEOPLE = 10
CONNECTIONS = 40  # of who offers mail: more than are ever busy
DELAY_S = 0.02
DELIVERIES_S = 3.0
DURABILITY_PAIRS = 3
MOVES = ("mumbai", "dr", "pune") * 2
WRITE_PAUSE_S = 0.005
BEFORE_S, AFTER_S = 1.0, 1.0  # of a move, that belong to it
CUTS_S = (5.0, 60.0)
CUT_RATE = 20  # messages a second for each of two homes
RETRY_S = 0.02

_FETCH = re.compile(rb"\* (\d+) FETCH ")
_SUBJECT = re.compile(rb"\* (\d+) FETCH [^\r]*\r\nSubject: minutes (\d+)\r\n")


class Watch:
    """What one session hears while idle, and when by the performance counter: counts of messages, messages' flags."""

    def __init__(self) -> None:
        self.exists: list[int] = []
        self.times: list[float] = []
        self.flags: dict[int, float] = {}

    def heard(self, now: float, line: bytes) -> None:
        if line.endswith(b" EXISTS"):
            self.exists.append(int(line[2:-7]))
            self.times.append(now)
        elif (found := _FETCH.match(line)) is not None:
            self.flags.setdefault(int(found[1]), now)

    def has(self, count: int) -> bool:
        return bool(self.exists) and self.exists[-1] >= count

    def seen_at(self, sequence: int) -> float:
        return self.times[bisect.bisect_left(self.exists, sequence)]


async def replication(folder: Path) -> list[Value]:
    """From 250 at the home to EXISTS in a session that idles at another site, and from sending STORE to FETCH there."""
    values: list[Value] = []
    for delay_s in (0.0, DELAY_S):
        # Lines only where they delay: what carries them takes time of this process, on the same cores.
        async with three(folder / f"{delay_s * 1000:.0f}", lined=delay_s > 0) as place:
            people = await place.people(*(f"p{n}" for n in range(PEOPLE)))
            await _offered_mail(place, people, WARM_UP_S, itertools.count(), RATES[-1])
            place.links.slow(delay_s=delay_s)
            words = f", {delay_s * 1000:.0f} ms each way" if delay_s else ""
            for rate in RATES:
                came, notes = await _mail_seen(place, people, itertools.count(), rate)
                goal = "≤ 100" if rate == RATES[-1] else ""
                values += _latencies(f"250 → another site sees it at {rate} messages/s{words}", came, goal, notes)
            came = await _flags_seen(place, people, 0)
            values += _latencies(f"STORE → another site sees it at {FLAG_RATE} changes/s{words}", came, "≤ 100", "")
            place.links.slow()
    return values


async def _mail_seen(
    place: Place, people: Sequence[str], numbers: "itertools.count[int]", rate: int
) -> tuple[list[float], str]:
    """Milliseconds of each message, and what is to be said of the load."""
    watching = await _elsewhere(place, people)
    before = [await _count(imap) for imap in watching]
    watches = await _idle(watching)
    cpu = [machine.cpu(site.config.run_dir) for site in place.sites]
    taken, late_s = await _offered_mail(place, people, OFFERED_S, numbers, rate)
    each = [sum(person == n for person, _ in taken.values()) for n in range(len(people))]
    counts = [was + more for was, more in zip(before, each, strict=True)]
    await until("all is seen", lambda: _all(w.has(n) for w, n in zip(watches, counts, strict=True)))
    spent = [machine.cpu(site.config.run_dir).since(was) for site, was in zip(place.sites, cpu, strict=True)]
    came = []
    for person, (imap, watch) in enumerate(zip(watching, watches, strict=True)):
        await imap.done()
        listed = await imap.ask(b"FETCH %d:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])" % (before[person] + 1))
        for sequence, number in _SUBJECT.findall(listed):
            to, at = taken[int(number)]
            assert to == person
            came.append(max(0.0, watch.seen_at(int(sequence)) - at) * 1000)
        imap.close()
    assert len(came) == len(taken), (len(came), len(taken))
    taken_words = f"{len(came)} of {rate * OFFERED_S} messages taken, offered {late_s * 1000:.0f} ms late at worst"
    home, copies = spent[0].ms_each(len(came)), spent[1].ms_each(len(came))
    return came, f"{taken_words}; home: {home}; a copy: {copies}"


async def _flags_seen(place: Place, people: Sequence[str], above: int) -> list[float]:
    """Milliseconds of each change; none is of a message up to `above`."""
    watching, storing = await _elsewhere(place, people), await sessions(place.pune, people)
    watches, one = await _idle(watching), [asyncio.Lock() for _ in people]
    sent: dict[tuple[int, int], float] = {}

    async def store(n: int) -> None:
        message, person = divmod(n, len(people))
        async with one[person]:
            sent[person, above + message + 1] = time.perf_counter()
            await storing[person].ask(b"STORE %d +FLAGS.SILENT (\\Flagged)" % (above + message + 1))

    await _offered(FLAG_RATE, FLAG_RATE * FLAGS_S, store)
    await until("all is seen", lambda: _all(sequence in watches[person].flags for person, sequence in sent))
    for imap in (*watching, *storing):
        imap.close()
    return [(watches[person].flags[n] - at) * 1000 for (person, n), at in sent.items()]


async def _offered_mail(
    place: Place, people: Sequence[str], seconds: int, numbers: "itertools.count[int]", rate: int
) -> tuple[dict[int, tuple[int, float]], float]:
    """Delivered at pune without waiting for answers: by number, to whom and when it was taken; and how late at worst it
    could be sent, since all connections were busy."""
    port = place.pune.config.ports.smtp
    free: asyncio.LifoQueue[Smtp] = asyncio.LifoQueue()
    for _ in range(CONNECTIONS):
        free.put_nowait(await Smtp.connect(port))
    messages = [(n, mail(MESSAGE_BYTES, n)) for n in itertools.islice(numbers, rate * seconds)]
    taken: dict[int, tuple[int, float]] = {}
    late_s = 0.0

    async def send(n: int) -> None:
        nonlocal late_s
        number, message = messages[n]
        due = time.perf_counter()
        smtp = await free.get()
        late_s = max(late_s, time.perf_counter() - due)
        if await smtp.send(people[n % len(people)], message):
            taken[number] = n % len(people), time.perf_counter()
            free.put_nowait(smtp)
        else:
            free.put_nowait(await Smtp.connect(port))

    await _offered(rate, rate * seconds, send)
    while not free.empty():
        free.get_nowait().close()
    return taken, late_s


async def _offered(rate: int, count: int, work: Callable[[int], Awaitable[None]]) -> None:
    """`rate` times a second, whatever becomes of those before."""
    async with asyncio.TaskGroup() as group:
        began = time.perf_counter()
        for n in range(count):
            if (ahead := began + n / rate - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            group.create_task(_done(work(n)))


async def _done(work: Awaitable[None]) -> None:
    await work


async def _elsewhere(place: Place, people: Sequence[str]) -> list[Imap]:
    """A session of each, half of them at mumbai and half at dr."""
    others = itertools.cycle((place.mumbai, place.dr))
    return [(await sessions(site, [person]))[0] for site, person in zip(others, people, strict=False)]


async def _idle(watching: Iterable[Imap]) -> list[Watch]:
    watches = []
    for imap in watching:
        watches.append(Watch())
        await imap.idle(watches[-1].heard)
    return watches


async def _count(imap: Imap) -> int:
    found = re.search(rb"MESSAGES (\d+)", await imap.ask(b"STATUS INBOX (MESSAGES)"))
    assert found is not None
    return int(found[1])


async def _all(things: Iterable[bool]) -> bool:
    return all(things)


def _latencies(name: str, ms: list[float], goal: str, notes: str) -> list[Value]:
    """`goal` is that of p99."""
    ms.sort()
    spread = f"p10 {ms[len(ms) // 10]:.1f}, p90 {ms[len(ms) * 9 // 10]:.1f}, max {ms[-1]:.1f}"
    return [
        Value(f"{name}, p50", statistics.median(ms), "ms", "", "; ".join(filter(None, (spread, notes)))),
        Value(f"{name}, p99", ms[len(ms) * 99 // 100], "ms", goal, f"{len(ms)} times"),
    ]


async def durability(folder: Path) -> list[Value]:
    """Delivery by SMTP when the home alone has it on disk, and when a copy too has it; runs in turn."""
    runs: dict[tuple[str, int], list[list[float]]] = {}
    async with three(folder) as place:
        (anna,) = await place.people("anna")
        await _deliveries(place.pune, anna, 10)  # whatever is slow once
        for kind in ("local", "remote") * DURABILITY_PAIRS:
            await api(place.pune, "PATCH", f"/cluster/partitions/{PARTITION}", {"durability": kind})
            await place.well()
            for connections in (1, 10):
                runs.setdefault((kind, connections), []).append(await _deliveries(place.pune, anna, connections))
    values = []
    for connections in (1, 10):
        found = {}
        for kind in ("local", "remote"):
            rates = [len(took) / DELIVERIES_S for took in runs[kind, connections]]
            took = sorted(itertools.chain(*runs[kind, connections]))
            found[kind] = statistics.median(rates), statistics.median(took), took[len(took) * 99 // 100]
            words = f"{connections} connection{'s' if connections > 1 else ''}, {kind}"
            spread = f"runs {', '.join(f'{rate:.0f}' for rate in rates)}"
            values += [
                Value(f"durability: {words}", found[kind][0], "messages/s", "", spread),
                Value(f"  {words}: a delivery, p50", found[kind][1], "ms"),
                Value(f"  {words}: a delivery, p99", found[kind][2], "ms", "", f"{len(took)} deliveries"),
            ]
        rate, p50, p99 = (r / lo for r, lo in zip(found["remote"], found["local"], strict=True))
        notes = f"latency × {p50:.2f} (p50), × {p99:.2f} (p99)"
        values.append(Value(f"  remote against local, {connections}", rate, "times the rate", "", notes))
    return values


async def _deliveries(site: Site, to: str, connections: int) -> list[float]:
    """Milliseconds of each, each connection sending the next as soon as one is taken."""
    message, took = mail(MESSAGE_BYTES), []
    until_s = time.perf_counter() + DELIVERIES_S

    async def deliver(smtp: Smtp) -> None:
        while (began := time.perf_counter()) < until_s:
            assert await smtp.send(to, message), "refused"
            took.append((time.perf_counter() - began) * 1000)
        smtp.close()

    await asyncio.gather(*[deliver(await Smtp.connect(site.config.ports.smtp)) for _ in range(connections)])
    return took


class Writer:
    """Sends to one person through one site, tries again at once, and keeps when each was taken."""

    def __init__(self, site: Site, to: str, pause_s: float = WRITE_PAUSE_S) -> None:
        self.taken: list[float] = []
        self.refused = 0
        self._site, self._to, self._pause_s = site, to, pause_s
        self._message = mail(1000)

    async def run(self) -> None:
        while True:
            try:
                smtp = await Smtp.connect(self._site.config.ports.smtp)
                while await smtp.send(self._to, self._message):
                    self.taken.append(time.perf_counter())
                    await asyncio.sleep(self._pause_s)
                self.refused += 1
            except (EOFError, OSError):
                await asyncio.sleep(RETRY_S)

    def longest_s(self, begin: float, end: float) -> float:
        """Without one that was taken."""
        times = [begin, *(at for at in self.taken if begin <= at <= end), end]
        return max(after - before for before, after in itertools.pairwise(times))


async def switchover(folder: Path) -> list[Value]:
    """How long who writes at each of three sites waits while the home moves."""
    async with three(folder) as place:
        people = await place.people("anna", "ben", "cleo")
        writers = [Writer(site, person) for site, person in zip(place.sites, people, strict=True)]
        tasks = [asyncio.create_task(writer.run()) for writer in writers]
        try:
            waits = [await _moved(place, writers, to) for to in MOVES]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    worst = [max(each) for each in waits]
    refused, taken = sum(w.refused for w in writers), sum(len(w.taken) for w in writers)
    notes = (
        f"worst writer of each: {', '.join(f'{each:.2f}' for each in worst)}; {taken} taken, {refused} refused for now"
    )
    return [
        Value(f"switchover: writers wait, median of {len(waits)}", statistics.median(worst), "s", "≤ 1", notes),
        Value(f"switchover: writers wait, worst of {len(waits)}", max(worst), "s", "≤ 1"),
    ]


async def _moved(place: Place, writers: Sequence[Writer], to: str) -> list[float]:
    """Seconds that each writer waited."""
    await asyncio.sleep(BEFORE_S)
    begin = time.perf_counter() - BEFORE_S / 2
    await api(place.dr, "POST", "/cluster/switchover", {"partitions": [PARTITION], "to": to})
    assert await place.home() == to
    end = time.perf_counter() + AFTER_S
    await asyncio.sleep(AFTER_S)
    waited = [writer.longest_s(begin, end) for writer in writers]
    await place.well()
    return waited


async def healing(folder: Path) -> list[Value]:
    """From the end of a cut until mail of two other homes is seen at the site that was cut off."""
    async with three(folder, lined=True) as place:
        homes = (place.pune, place.dr)
        people = [*await place.people("anna"), *await place.people("ben", at=place.dr)]
        watching = await sessions(place.mumbai, people)
        watches = await _idle(watching)
        writers = [Writer(site, person, 1 / CUT_RATE) for site, person in zip(homes, people, strict=True)]
        tasks = [asyncio.create_task(writer.run()) for writer in writers]
        try:
            return [await _healed(place, writers, watches, cut_s) for cut_s in CUTS_S]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _healed(place: Place, writers: Sequence[Writer], watches: Sequence[Watch], cut_s: float) -> Value:
    await place.well()
    await asyncio.sleep(BEFORE_S)
    place.links.cut("mumbai")
    begin = time.perf_counter()
    await asyncio.sleep(cut_s / 2)
    # What was sent at once after the cut may be on its way, and come as soon as the line is whole.
    half = [len(writer.taken) for writer in writers]
    await asyncio.sleep(cut_s / 2)
    sent = [len(writer.taken) for writer in writers]
    place.links.heal("mumbai")
    healed = time.perf_counter()
    enough = [max(count, before + 1) for count, before in zip(sent, half, strict=True)]
    await until("the copies are level", lambda: _all(w.has(n) for w, n in zip(watches, enough, strict=True)), RETRY_S)
    first = [watch.seen_at(count + 1) - healed for watch, count in zip(watches, half, strict=True)]
    level = max(watch.seen_at(count) - healed for watch, count in zip(watches, sent, strict=True))
    meanwhile = max(writer.longest_s(begin, healed) for writer in writers)
    after = max(writer.longest_s(healed, time.perf_counter()) for writer in writers)
    notes = (
        f"of two homes: {first[0]:.2f}, {first[1]:.2f}; all of {sum(sent) - sum(half)} sent in the cut's second half after "
        f"{level:.2f}; writers at the homes waited {meanwhile:.2f} at most while it was cut, {after:.2f} after"
    )
    return Value(f"cut of {cut_s:.0f} s healed: copies move again", max(first), "s", "≤ 5", notes)


async def failover(_: Path) -> list[Value]:
    """A site of three killed in the middle of the mail, as `angarium demo` does it and its clients count it."""
    command = (*CLI, "demo", "--json", "--port-bases", ",".join(map(str, bases())))
    process = await asyncio.create_subprocess_exec(
        *command, cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, told = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(told.decode())
    verdict = json.loads(out.splitlines()[-1])
    times = verdict["times"]
    notes = f"{verdict['acknowledged']} messages, {verdict['lost']} lost; new home after {times['to_new_home']:.1f} s"
    without, waited = verdict["seconds_without_service"], times["waited_at_switchover"]
    return [
        Value("a site of three killed: longest time without an acknowledgement", without, "s", "≤ 10", notes),
        Value("planned switchover: longest time without an acknowledgement", waited, "s", "≤ 1"),
    ]


FIGURES: dict[str, Callable[[Path], Awaitable[list[Value]]]] = {
    "replication": replication,
    "catching-up": catching_up,
    "durability": durability,
    "switchover": switchover,
    "healing": healing,
    "failover": failover,
}
