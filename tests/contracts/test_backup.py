"""A backup of a serving site is whole and verified; what is restored from it goes on where it was, in a new epoch."""

import asyncio
import hashlib
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from cluster.domain.directory.commands import AddDomain
from cluster.domain.mailbox.commands import ChangeFlags
from cluster.domain.mailbox.events import FLAGGED, FlagMode
from cluster.log.model import Blob
from cluster.position import split
from node.assembly import Assembly, assembled
from node.backup import backed_up
from node.config import Config, load
from node.restore import LOST_EPOCHS_MAX, RestoreRefused, lost_epochs, restore
from node.world import SystemWorld
from storage.archive import BackupDamaged, BackupFailed, Manifest, read_manifest
from storage.backup import backup
from storage.overview import Progress
from storage.shapes import Done
from storage.verification import verify
from tests import live
from tests.contracts.test_rebuild import dump, rebuilt
from tests.contracts.test_site import append, body, select
from tests.live import ACTOR, Live, Person

UID_GAP = 65_536
LARGE = b"Subject: large\r\n\r\n" + b"".join(b"%07d %s\r\n" % (n, os.urandom(24).hex().encode()) for n in range(40_000))


def message(number: int) -> bytes:
    return b"Subject: number %d\r\n\r\nbody %d\r\n" % (number, number)


async def backed(parts: Assembly, target: Path) -> list[Progress]:
    return [step async for step in backup(target, backed_up(parts, "test"))]


async def read_back(target: Path) -> list[Progress]:
    return [step async for step in verify(target)]


def serving_nobody(config: Config) -> Config:
    return live.configure(config, "[node]", '[node]\nworker_module = "tests.contracts.supervised_worker"')


async def mail_of(site: Live, person: Person) -> dict[int, bytes]:
    selected = await select(site, person)
    return {uid: await body(site, person, selected.status.mailbox.id, uid) for uid in selected.uids}


class Before:
    """What clients of the site knew when it was lost."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.uidvalidity = 0
        self.acknowledged: dict[int, bytes] = {}  # before the backup began
        self.later: dict[int, bytes] = {}
        self.highestmodseq = 0
        self.flagged_modseq = 0


async def lived(config: Config, target: Path) -> Before:
    """A site with mail, backed up while more comes."""
    async with assembled(config, SystemWorld(), "before") as parts:
        site = Live(parts)
        person = await site.person()
        await site.site.mailboxes(person.id)
        before = Before(person)
        for data in (*map(message, range(20)), LARGE):
            done = await append(site, person, data)
            before.uidvalidity = done.uidvalidity
            before.acknowledged[done.uids[0]] = data
        inbox = (await select(site, person)).status.mailbox.id
        flagged = await site.site.execute(ACTOR, ChangeFlags(person.id, inbox, ((3, 3),), FlagMode.ADD, FLAGGED))
        assert isinstance(flagged, Done)
        before.flagged_modseq = flagged.position
        over = asyncio.Event()

        async def more() -> None:
            number = 1000
            while not over.is_set():
                done = await append(site, person, message(number))
                before.later[done.uids[0]] = message(number)
                number += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(more())
            steps = await backed(parts, target)
            over.set()
        before.highestmodseq = (await select(site, person)).status.highestmodseq
        assert {step.step for step in steps} >= {"events", "contents", "verifying events", "verifying contents"}
        assert steps[-1].step == "verified" and before.later
    return before


async def goes_on(config: Config, before: Before, lost: int) -> None:
    """The restored site keeps what it promised. `lost`: epochs that are passed over beside the one that ended."""
    person = before.person
    async with assembled(config, SystemWorld(), "after") as parts:
        site = Live(parts)
        selected = await select(site, person)
        assert selected.status.mailbox.uidvalidity == before.uidvalidity
        mail = await mail_of(site, person)
        assert before.acknowledged.items() <= mail.items() <= (before.acknowledged | before.later).items()
        assert selected.status.uidnext == max(mail) + 1 + UID_GAP * (1 + lost)
        assert selected.status.highestmodseq > before.highestmodseq
        flags = {flags.uid: flags.modseq async for batch in site.site.messages(
            person.id, selected.status.mailbox.id, ((1, 21),)) for flags in batch}  # fmt: skip
        assert flags[3] == before.flagged_modseq
        done = await append(site, person, message(5000))
        assert done.uids[0] > max(before.later) and split(done.position).epoch == 2 + lost
        changes = await site.site.changes(person.id, selected.status.mailbox.id, before.highestmodseq)
        assert done.uids[0] in {flags.uid for flags in changes.changed}  # type: ignore[union-attr]
        signed = await site.site.sign_in(person.address, person.password, ACTOR)
        assert getattr(signed, "id", None) == person.id, signed
        tables = await dump(site)
        assert not any(step.warning for step in await rebuilt(site))
        assert await dump(site) == tables


@pytest.mark.timeout(300)
@pytest.mark.long
async def test_a_lost_site_is_restored_and_goes_on_in_a_new_epoch(tmp_path: Path) -> None:
    config = serving_nobody(live.init(tmp_path / "site", site="lost"))
    target = tmp_path / "backup"
    with live.running(config):
        before = await lived(config, target)
    files = {path: path.read_bytes() for path in (config.dir / "secrets.toml", config.tls.key, config.tls.certificate)}
    shutil.rmtree(config.dir)
    steps: list[Progress] = []
    await restore(target, config.dir, steps.append)
    assert {step.step for step in steps} >= {"verified", "restoring contents", "restoring events", "tables"}
    assert all(path.read_bytes() == data for path, data in files.items())
    assert (config.dir / "secrets.toml").stat().st_mode & 0o777 == 0o600
    assert not (config.dir / "restoring").exists()
    with live.running(load(config.dir)):
        await goes_on(load(config.dir), before, 0)
    with pytest.raises(RestoreRefused, match="has data"):
        await restore(target, config.dir, steps.append)
    # The same backup once more, into a site that `angarium init` made: the UIDs of the life between are not used again.
    again = serving_nobody(live.init(tmp_path / "again", site="lost"))
    token = again.api_token
    await restore(target, again.dir, steps.append)
    with live.running(again):
        assert load(again.dir).api_token == token
        await goes_on(again, before, 1)


@pytest.fixture
async def made(live_site: Live, tmp_path: Path) -> Path:
    """A backup of a small site."""
    person = await live_site.person()
    await live_site.site.mailboxes(person.id)
    for number in range(3):
        await append(live_site, person, message(number))
    await append(live_site, person, LARGE)
    await backed(live_site.parts, tmp_path / "backup")
    return tmp_path / "backup"


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def damaged(path: Path) -> Iterator[None]:
    """A file damaged in one way after another, and whole again in the end."""
    kept = path.read_bytes()
    path.unlink()
    yield
    for at in {0, len(kept) // 3, len(kept) // 2, len(kept) - 2}:
        path.write_bytes(kept)
        flip(path, at)
        yield
    path.write_bytes(kept[:-2])
    yield
    path.write_bytes(kept)


async def test_any_damage_is_found_and_named(made: Path, tmp_path: Path) -> None:
    assert (await read_back(made))[-1].step == "verified"
    files = sorted(path for path in made.rglob("*") if path.is_file())
    assert {path.name for path in files} >= {"directory", "mail-test-1", "000001.pack", "secrets.toml", "manifest.json"}
    for path in files:
        for _ in damaged(path):
            with pytest.raises(BackupDamaged) as raised:
                await read_back(made)
            assert path.name in str(raised.value) or path.name.startswith("manifest")
    assert (await read_back(made))[-1].step == "verified"
    flip(made / "events" / "mail-test-1", 100)
    with pytest.raises(RestoreRefused, match="mail-test-1"):
        await restore(made, tmp_path / "new", lambda _: None)
    assert not (tmp_path / "new").exists()


async def test_a_content_that_an_event_names_and_no_pack_has_is_found(live_site: Live, tmp_path: Path) -> None:
    person = await live_site.person()
    await live_site.site.mailboxes(person.id)
    await append(live_site, person, os.urandom(100).hex().encode())
    target = tmp_path / "backup"
    content = (await live_site.parts.database.fetch("SELECT segments FROM content"))[-1]["segments"]
    await live_site.parts.caught_up()
    hashes = [hash async for batch in live_site.parts.blobs.walk() for hash in batch]
    lost = next(hash for hash in hashes if hash in content)
    data = await live_site.parts.blobs.get(lost)
    await live_site.parts.blobs.delete(lost)
    # One lost content must not keep all others from being backed up, but it is told.
    steps = await backed(live_site.parts, target)
    assert steps[-1] == Progress("contents that this site had lost", 1, 0, "blobs", warning=True)
    manifest = read_manifest(target)
    assert manifest.missing == (lost.hex(),) and (await read_back(target))[-1].step == "verified"
    rewrite(target, manifest, missing=())
    with pytest.raises(BackupDamaged, match=lost.hex()):
        await read_back(target)
    await live_site.parts.blobs.put([Blob(lost, data)])
    await live_site.parts.blobs.sync()


def rewrite(target: Path, manifest: Manifest, **changes: object) -> None:
    text = msgspec.json.encode(msgspec.structs.replace(manifest, **changes))
    (target / "manifest.json").write_bytes(text)
    (target / "manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n", encoding="ascii")


async def test_a_backup_that_cannot_go_on_says_so_and_is_marked(live_site: Live, tmp_path: Path) -> None:
    await live_site.site.execute(ACTOR, AddDomain(f"{live_site.world.new_id():x}.example"))
    target = tmp_path / "full"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As a full disk does: a file takes no more bytes.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        with pytest.raises(BackupFailed, match="incomplete"):
            await backed(live_site.parts, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (target / "incomplete").exists() and not (target / "manifest.json").exists()
    with pytest.raises(BackupDamaged, match="not finished"):
        await read_back(target)
    with pytest.raises(BackupFailed, match="not empty"):
        await backed(live_site.parts, target)
    stopped = tmp_path / "stopped"
    async with aclosing(backup(stopped, backed_up(live_site.parts, "test"))) as steps:
        await anext(steps)
    with pytest.raises(RestoreRefused, match="no complete backup"):
        await restore(stopped, tmp_path / "new", lambda _: None)


async def test_a_backup_is_restored_only_where_it_does_no_harm(made: Path, engines: Config, tmp_path: Path) -> None:
    other = live.init(tmp_path / "other", site="other")
    occupied = tmp_path / "occupied"
    occupied.mkdir()
    (occupied / "letter.txt").write_text("mine")
    for directory, why in ((engines.dir, "has data"), (other.dir, "of site other"), (occupied, "not empty")):
        before = sorted(directory.rglob("*.t*"))
        with pytest.raises(RestoreRefused, match=why):
            await restore(made, directory, lambda _: None)
        assert sorted(directory.rglob("*.t*")) == before
    # Its own engine runs, on the port that the backup's configuration has.
    with pytest.raises(RestoreRefused, match="nats"):
        await restore(made, tmp_path / "beside", lambda _: None)
    assert {path.name for path in (tmp_path / "beside").iterdir()} == {"run"}


KILLED = """
import asyncio, sys
from pathlib import Path
from node.restore import restore
asyncio.run(restore(Path(sys.argv[1]), Path(sys.argv[2]), lambda step: print("step", step.step, flush=True)))
"""


@pytest.mark.long
async def test_a_killed_restore_leaves_no_site_and_the_next_one_clears_up(made: Path, engines: Config, tmp_path: Path) -> None:
    fresh = live.init(tmp_path / "fresh", site=engines.site)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, str(made), str(fresh.dir), cwd=live.REPOSITORY, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    while not (line := await process.stdout.readline()).startswith(b"step restoring events"):
        assert line, "it ended before it could be killed"
    process.kill()
    await process.wait()
    assert (fresh.dir / "restoring" / "nats").exists()
    assert not any((fresh.dir / name).exists() for name in ("nats", "postgres", "blobs"))
    steps: list[Progress] = []
    await restore(made, fresh.dir, steps.append)
    assert steps[-1].step == "tables" and not (fresh.dir / "restoring").exists()
    assert all((fresh.dir / name).exists() for name in ("nats", "postgres", "blobs"))


def test_lives_of_a_site_between_backup_and_restore_are_passed_over() -> None:
    day = 86_400.0
    assert lost_epochs(day / 2, 0) == 0
    assert lost_epochs(-5.0, 0) == 0
    assert [lost_epochs(age * day, 0) for age in (1, 2.5, 30)] == [1, 2, 30]
    assert lost_epochs(day * 1.5, 2) == 3
    assert lost_epochs(day * 1_000_000, 0) == LOST_EPOCHS_MAX
