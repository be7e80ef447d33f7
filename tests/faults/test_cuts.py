"""A site is cut off whole, or far away, or at the end of a thin line: the others go on, and all meet again."""

import asyncio
import contextlib
import hashlib
import re
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from cluster.log.connection import Connection
from cluster.log.engine import Engine
from cluster.log.jetstream import JetStreamLog
from tests.faults.clients import GONE, Imap, Smtp, Submission
from tests.faults.lines import Lined
from tests.faults.site import Site
from tests.faults.test_failover import Writer, log_of, until_all_there
from tests.faults.test_losses import Crowd, agreed, holds, ready, struck, watched
from tests.faults.test_sites import PASSWORD, REFUSED_S_MAX, message, person, seen, signed_in, until_alike

pytestmark = [pytest.mark.long, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

DELAY_S, FAR_S = 0.020, 0.3
THIN_BYTES_S = 250_000
LOAD_S = 5.0
LEVEL_S_MAX = 5.0
GOES_ON_S_MAX, GOES_ON_ELECTED_S_MAX = 5.0, 12.0
CALM_S_MAX = 60.0
PARTITIONS = 7
ALONE_S_MAX = 30.0


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def calm(lined: Lined) -> AsyncIterator[None]:
    """Every test begins where every partition has its holder and its copies, and leaves no line cut."""
    log = await log_of(lined.sites[0])
    async with asyncio.timeout(CALM_S_MAX):
        while len(log.watch.found) < PARTITIONS or not all(
            found.partition.holder and len(found.partition.members) == len(found.partition.copies)
            for found in log.watch.found.values()
        ):
            await log.watch.looked()
    await log.stop()
    yield
    lined.links.heal()
    lined.links.slow()


def homes(log: JetStreamLog) -> dict[str, tuple[str, int]]:
    return {name: (found.partition.home, found.partition.epoch) for name, found in log.watch.found.items()}


async def plane_leader(site: Site) -> str:
    """The site whose member leads the control plane."""
    assert site.config.backbone is not None
    port = site.config.backbone.of(site.config.site).client_port
    connection = Connection(f"nats://127.0.0.1:{port}", site.config.nats.user, site.config.backbone.client_password)
    await connection.start()
    try:
        return str((await Engine(connection).info("KV_control"))["cluster"]["leader"]).removeprefix("backbone-")
    finally:
        await connection.stop()


async def status(site: Site, address: str) -> tuple[int, int, int]:
    """HIGHESTMODSEQ, UIDNEXT and MESSAGES of INBOX; none where the site cannot say at the moment."""
    client = await signed_in(site, address)
    with contextlib.suppress(*GONE):
        told = b"".join((await client.ask("STATUS INBOX (HIGHESTMODSEQ UIDNEXT MESSAGES)")).untagged)
        found = [re.search(word + rb" (\d+)", told) for word in (b"HIGHESTMODSEQ", b"UIDNEXT", b"MESSAGES")]
        client.close()
        modseq, uidnext, messages = [int(each[1]) if each is not None else -1 for each in found]
        return modseq, uidnext, messages
    return -1, -1, -1


async def home_moves(log: JetStreamLog, partition: str, away: str) -> str:
    """Who is home, as soon as it is not `away`."""
    async with asyncio.timeout(30):
        while (now := log.record(partition)) is None or now.home == away or not now.begun:
            await log.watch.looked()
    return now.home


async def listed(client: Imap) -> set[str]:
    told = (await client.ask('LIST "" "*"')).untagged
    return {line.rpartition(b'"/" ')[2].strip().strip(b'"').decode() for line in told if line.startswith(b"LIST")}


async def test_a_far_site_and_a_thin_line_move_nothing(lined: Lined) -> None:
    """20 ms each way between all; then one of them at 250 kB/s too, with durability `remote`."""
    pune, mumbai, dr = lined.sites
    anna = await person(pune, "anna")
    log = await log_of(pune)
    await ready(log, remote=True, home="pune")
    await signed_in(mumbai, anna)
    before = homes(log)
    clients = [await signed_in(site, anna) for site in lined.sites]
    everything: list[int] = []
    for words, rate in (("20 ms each way", 0), (f"and {THIN_BYTES_S} bytes a second to mumbai", THIN_BYTES_S)):
        lined.links.slow(delay_s=DELAY_S)
        lined.links.slow("mumbai", delay_s=DELAY_S, rate=rate)
        crowd = Crowd([pune], anna, 4, first=len(everything) * 1_000_000)
        began = time.monotonic()
        await crowd.for_s(LOAD_S)
        everything += await crowd.stop()
        took, ended = time.monotonic() - began, time.monotonic()
        await asyncio.gather(*(until_all_there(client, everything) for client in clients))
        level = time.monotonic() - ended
        print(f"\n{words}: {crowd.words(took, len(crowd.acknowledged))}, all level {level:.2f} s after the last")
        assert level < LEVEL_S_MAX
    lined.links.slow()
    assert homes(log) == before, "nothing moved"
    await agreed(lined.sites, anna, everything)
    await log.stop()


async def test_a_home_that_is_cut_off_under_load(lined: Lined) -> None:
    """The majority goes on, the minority promises nothing that it cannot keep and is read, and all meet when the cut heals."""
    leader = await plane_leader(lined.sites[0])
    away = next(site for site in lined.sites if site.config.site != leader)
    others = [site for site in lined.sites if site is not away]
    partition = f"mail-{away.config.site}-1"
    ben = await person(away, "ben")
    log = await log_of(others[0])
    await ready(log, remote=True, home=away.config.site, partition=partition)
    await signed_in(others[0], ben)
    inside = await signed_in(away, ben)
    alone = Writer(away, ben, 9_000_000)
    async with watched(others, ben) as device:
        crowd = Crowd(others, ben, 4)
        await crowd.more(20)
        knew = await seen(inside)
        elected = await plane_leader(others[0]) == away.config.site
        crowd.forget_waits()
        lined.links.cut(away.config.site)
        cut = time.monotonic()
        await home_moves(log, partition, away.config.site)
        moved = time.monotonic() - cut
        await crowd.more(20)
        how = " (the control plane elected too)" if elected else ""
        print(f"\nanother home {moved:.2f} s after the cut, writers waited {crowd.waited_s:.2f} s{how}")
        assert crowd.waited_s < (GOES_ON_ELECTED_S_MAX if elected else GOES_ON_S_MAX)
        acknowledged = await crowd.stop()
        assert set(knew.rows) <= set((await seen(inside)).rows), "who is cut off reads on"
        began = time.monotonic()
        for words, literal in (("UID STORE 1 +FLAGS (\\Answered)", b""), ("APPEND INBOX", message(8_000_000))):
            refused = await inside.ask(words, literal)
            assert refused.state == "NO" and refused.text.startswith("[UNAVAILABLE]"), refused
        assert time.monotonic() - began < 2 * REFUSED_S_MAX
        late = await signed_in(away, ben)
        assert {row[:2] for row in knew.rows} <= {row[:2] for row in (await seen(late)).rows}, "who comes now too"
    promised = await alone.stop()
    goal = await status(others[0], ben)
    lined.links.heal()
    healed = time.monotonic()
    # That it is home no more it reads from its own replica of the control plane, which stood for leader while it was alone:
    # its return makes all of them elect anew, for four to nine seconds (as measured, nats-server 2.15).
    while (now := await status(away, ben)) < goal:
        assert time.monotonic() - healed < GOES_ON_ELECTED_S_MAX, (now, goal)
    took = time.monotonic() - healed
    print(f"{len(promised)} taken by the site that was cut off; level {took:.2f} s after the cut healed")
    await holds(lined.sites, ben, [*acknowledged, *promised], device)
    await log.stop()


class Names:
    """What every UID named to anybody, at any side of a cut."""

    def __init__(self) -> None:
        self.of: dict[tuple[int, int], str] = {}

    async def append(self, client: Imap, number: int) -> str:
        """What is answered; where it is OK, the name that the message was given."""
        answer = await client.ask("APPEND INBOX", message(number))
        if (found := re.search(r"\[APPENDUID (\d+) (\d+)\]", answer.text)) is not None:
            name, hash = (int(found[1]), int(found[2])), hashlib.sha256(message(number)).hexdigest()
            assert self.of.setdefault(name, hash) == hash, f"{name} was given twice"
        return answer.state

    async def look(self, client: Imap) -> list[str]:
        """The contents that are there; all that is shown must be what was named so."""
        now = await seen(client)
        for uid, hash, *_ in now.rows:
            assert self.of.setdefault((now.uidvalidity, uid), hash) == hash, f"UID {uid} names other content"
        return [hash for _, hash, *_ in now.rows]


async def test_no_uid_is_given_twice_in_a_cut(lined: Lined) -> None:
    """Durability `local`: the home goes on giving UIDs until its lease is over, the other side as soon as it has one."""
    pune, mumbai, dr = lined.sites
    gus = await person(dr, "gus")
    log = await log_of(mumbai)
    await ready(log, remote=False, home="dr", partition="mail-dr-1")
    at_dr, at_mumbai = await signed_in(dr, gus), await signed_in(mumbai, gus)
    names, taken = Names(), list(range(5))
    for number in range(5):
        assert await names.append(at_dr, number) == "OK"

    await until_alike([at_dr, at_mumbai], 5)
    lined.links.cut("dr")
    number = 100_000
    cut = time.monotonic()
    while await names.append(at_dr, number) == "OK":
        taken.append(number)
        number += 1
    unsure = hashlib.sha256(message(number)).hexdigest()
    print(f"\nthe home that is cut off said no after {time.monotonic() - cut:.1f} s")
    assert time.monotonic() - cut < ALONE_S_MAX
    alone = len(taken) - 5
    await names.look(at_dr)
    await home_moves(log, "mail-dr-1", "dr")
    for number in range(200, 210):
        async with asyncio.timeout(20):
            while await names.append(at_mumbai, number) != "OK":
                pass
        taken.append(number)
    assert alone >= 5, "it had a lease for a while"
    await names.look(at_mumbai)
    lined.links.heal()
    contents = {hashlib.sha256(message(number)).hexdigest() for number in taken}
    async with asyncio.timeout(30):
        while not contents <= set(await names.look(at_mumbai)):
            pass
    now = await agreed(lined.sites, gus, taken)
    hashes = [hash for _, hash, *_ in now.rows]
    assert len(hashes) == len(set(hashes)) and contents <= set(hashes) <= contents | {unsure}
    for site in lined.sites:
        await names.look(await signed_in(site, gus))
    print(f"\n{alone} UIDs given alone in the cut, {len(names.of)} names in all; each has named one message")
    await log.stop()


async def test_a_delete_and_a_rename_are_not_undone_by_who_was_away(lined: Lined) -> None:
    """Done before a home is lost, and done while it is: neither its successor nor its return brings the old names back."""
    pune, mumbai, dr = lined.sites
    hal = await person(mumbai, "hal")
    log = await log_of(pune)
    await ready(log, remote=True, home="mumbai", partition="mail-mumbai-1")
    client, elsewhere = await signed_in(mumbai, hal), await signed_in(dr, hal)
    for name in ("early", "first", "late", "second"):
        assert (await client.ask(f"CREATE {name}")).state == "OK"
        assert (await client.ask(f"APPEND {name}", message(1))).state == "OK"
    for words in ("DELETE early", "RENAME first third"):
        assert (await client.ask(words)).state == "OK"
    lined.links.cut("mumbai")
    await home_moves(log, "mail-mumbai-1", "mumbai")
    known = await listed(elsewhere)
    assert {"third", "late", "second"} <= known and not {"early", "first"} & known
    for words in ("DELETE late", "RENAME second fourth"):
        async with asyncio.timeout(20):
            while (await elsewhere.ask(words)).state != "OK":
                pass
    lined.links.heal()
    wanted = (known - {"late", "second"}) | {"fourth"}

    async def all_list_it() -> None:
        for site in lined.sites:
            async with asyncio.timeout(20):
                while True:
                    at = await signed_in(site, hal)
                    with contextlib.suppress(*GONE):
                        if await listed(at) == wanted:
                            break
                    at.close()

    await all_list_it()
    async with asyncio.timeout(30):
        while (now := log.record("mail-mumbai-1")) is None or len(now.members) < 2:
            await log.watch.looked()
    await log.switchover("mail-mumbai-1", "mumbai")
    await all_list_it()
    for name in ("third", "fourth"):
        at = await signed_in(mumbai, hal)
        assert b"EXISTS" in b"".join((await at.ask(f"SELECT {name}")).untagged)
        assert len([row for row in (await at.ask("UID FETCH 1:* (UID)")).untagged if b"FETCH" in row]) == 1
    await log.stop()


async def test_a_line_that_goes_down_during_a_submission(lined: Lined) -> None:
    """It is said to have been sent, or it is sent again by a sender who was told that it was not: it arrives once."""
    pune, mumbai, _ = lined.sites
    ida = await person(pune, "ida")
    log = await log_of(pune)
    await signed_in(mumbai, ida)
    answers = []
    for number, before_the_end in enumerate((True, False), 1):
        sender = await Submission.signed(mumbai.config.ports.submission, ida, PASSWORD)
        assert await sender.begin(ida, [ida]) == 354
        data = message(number, 20_000).replace(b"a@elsewhere.example", ida.encode())
        await sender.give(data[:10_000])
        if before_the_end:
            lined.links.cut("mumbai")
        await sender.give(data[10_000:])
        ending = asyncio.create_task(sender.end())
        if not before_the_end:
            await asyncio.sleep(0)
            lined.links.cut("mumbai")
        code = await ending
        assert code == 250 or 400 <= code < 500, code
        answers.append(code)
        lined.links.heal()
        async with asyncio.timeout(90):
            while code != 250:
                once_more = await Submission.signed(mumbai.config.ports.submission, ida, PASSWORD)
                if (code := await once_more.begin(ida, [ida])) == 354:
                    await once_more.give(data)
                    code = await once_more.end()
                once_more.close()
        clients = [await signed_in(site, ida) for site in lined.sites]
        found = [await until_all_there(client, list(range(1, number + 1))) for client in clients]
        assert all(len(each) == number for each in found), "once"
    print(f"\nanswers to submissions whose line went down: {answers}")
    await log.stop()


async def test_an_old_home_that_powers_up_alone_promises_nothing(lined: Lined) -> None:
    """It was lost, others went on; then it starts where it hears nobody."""
    pune, mumbai, dr = lined.sites
    eva = await person(dr, "eva")
    log = await log_of(mumbai)
    await ready(log, remote=True, home=(await home_of(log, "mail-dr-1")), partition="mail-dr-1")
    old = next(site for site in lined.sites if site.config.site == log.record("mail-dr-1").home)  # type: ignore[union-attr]
    others = [site for site in lined.sites if site is not old]
    watching = await log_of(others[0])
    await log.stop()
    sender = await Smtp.connect(others[0].config.ports.smtp)
    assert await sender.send([eva], message(1)) == 250
    before = await until_alike([await signed_in(site, eva) for site in lined.sites], 1)
    await struck(old)
    await home_moves(watching, "mail-dr-1", old.config.site)
    numbers = [1]
    for number in range(2, 12):
        async with asyncio.timeout(20):
            while await sender.send([eva], message(number)) != 250:
                pass
        numbers.append(number)
    lined.links.cut(old.config.site)
    await old.start()
    client = await signed_in(old, eva)
    assert await seen(client) == before, "it shows what it had"
    for words, literal in (
        ("UID STORE 1 +FLAGS (\\Answered)", b""),
        ("APPEND INBOX", message(500)),
        ("CREATE mine", b""),
    ):
        refused = await client.ask(words, literal)
        assert refused.state == "NO" and refused.text.startswith("[UNAVAILABLE]"), refused
    assert (record := watching.record("mail-dr-1")) is not None and record.home != old.config.site
    lined.links.heal()
    after = await agreed(lined.sites, eva, numbers)
    assert len(after.rows) == len(numbers)
    assert after.uidvalidity == before.uidvalidity and set(before.rows) <= set(after.rows)
    await watching.stop()


async def home_of(log: JetStreamLog, partition: str) -> str:
    async with asyncio.timeout(30):
        while (now := log.record(partition)) is None or len(now.members) < 2:
            await log.watch.looked()
    return now.home


async def test_a_home_killed_right_after_its_250(lined: Lined) -> None:
    """All its processes in the moment in which the sender has read the answer, which no copy could have heard by then if it
    had not been waited for. Durability `remote`."""
    pune, mumbai, dr = lined.sites
    partition = "mail-mumbai-1"
    cleo = await person(mumbai, "cleo")
    log = await log_of(pune)
    await ready(log, remote=True, home="mumbai", partition=partition)
    reader = await signed_in(dr, cleo)
    sender = await Smtp.connect(mumbai.config.ports.smtp)
    assert await sender.send([cleo], message(1)) == 250
    before = await until_alike([reader], 1)
    lined.links.slow(delay_s=FAR_S)
    assert await sender.send([cleo], message(2)) == 250
    await struck(mumbai)
    lined.links.slow()
    await home_moves(log, partition, "mumbai")
    after = await until_alike([reader, await signed_in(pune, cleo)], 2)
    assert set(before.rows) <= set(after.rows)
    await mumbai.start()
    last = await until_alike([await signed_in(site, cleo) for site in lined.sites], 2)
    # Who looked before the new home's first words were there saw UIDNEXT as it was before the gap.
    assert last._replace(uidnext=after.uidnext) == after and last.uidnext >= after.uidnext
    await log.stop()
