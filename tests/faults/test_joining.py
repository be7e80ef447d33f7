"""An organisation grows while it is used, and shrinks: one site, two, a witness, three; one of them is stolen. Real engines."""

import asyncio
import base64
import contextlib
import datetime
import random
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from cluster.log.connection import Arrived, Connection, NobodyThere, Unreachable
from cluster.log.engine import Engine
from node import certs, nkeys
from node.backbone import ConfigRefused, read_roster
from node.child import Child
from node.config import STANDARD_PORTS, Config, load
from node.engines import nats
from node.entering import JOIN_PATH, enter
from node.init import Plan
from node.tokens import JoinToken, TokenRefused, read, written
from tests.contracts.test_carrying_between_sites import heard as answers
from tests.contracts.test_carrying_between_sites import showing
from tests.faults.clients import Smtp
from tests.faults.site import Site
from tests.faults.test_sites import message, person, seen, signed_in, until_alike
from tests.live import CLI, REPOSITORY

pytestmark = [pytest.mark.long, pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]

OFFSETS = (*STANDARD_PORTS.values(), 4223, 6222, 6994, 7422)
SEEN_S_MAX = 60.0
HEARD_S = 1.0
NEVER = datetime.timedelta(hours=2)


class Place(NamedTuple):
    folder: Path
    bases: list[int]
    pune: Site


def bases(count: int) -> list[int]:
    while True:
        found = random.SystemRandom().sample(range(8_000, 25_000, 20), count)
        ports = [base + offset for base in found for offset in OFFSETS]
        with contextlib.suppress(OSError):
            if len(set(ports)) == len(ports):
                for port in ports:
                    with socket.socket() as probe:
                        probe.bind(("127.0.0.1", port))
                return found


def said(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run((*CLI, *words), cwd=REPOSITORY, capture_output=True, text=True, check=False)


def opened(folder: Path) -> Site:
    """As sites of tests are: passwords of this machine in the clear."""
    file = folder / "angarium.toml"
    file.write_text(file.read_text().replace("plaintext_networks = []", 'plaintext_networks = ["127.0.0.0/8"]'))
    return Site(load(folder))


def token(place: Place, *words: str) -> str:
    done = said("--dir", str(place.pune.config.dir), "cluster", "token", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def join(place: Place, name: str, text: str, base: int, *words: str, verb: str = "join") -> str:
    """What was complained of, empty = it is there."""
    options = ("--token", text, "--site", name, "--hostname", f"{name}.example.org", "--port-base", str(base))
    done = said(verb, str(place.folder / name), *options, *words)
    assert done.returncode in (0, 1), done.stderr
    assert (done.returncode == 0) == (place.folder / name / "angarium.toml").exists()
    return done.stderr


async def until(what: str, is_so) -> None:  # type: ignore[no-untyped-def]
    try:
        async with asyncio.timeout(SEEN_S_MAX):
            while True:
                if await is_so():
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(what) from None


def formed(config: Config) -> tuple[str, ...]:
    roster = read_roster(config.roster_file)
    assert roster is not None
    return roster.formed


@contextlib.asynccontextmanager
async def connected(config: Config, *, member: bool = False) -> AsyncIterator[Connection]:
    """To a site's own engine, with all that a thief of its folder has; or to its member of the backbone."""
    assert config.backbone is not None
    port = config.backbone.of(config.site).client_port if member else config.ports.nats
    password = config.backbone.client_password if member else config.nats.password
    connection = Connection(f"nats://127.0.0.1:{port}", config.nats.user, password, inbox=config.site)
    await connection.start()
    try:
        yield connection
    finally:
        await connection.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder, found = tmp_path_factory.mktemp("growing"), bases(5)
    done = said("init", str(folder / "pune"), "--site", "pune", "--domain", "example.org", "--port-base", str(found[0]))
    assert done.returncode == 0, done.stderr
    pune = opened(folder / "pune")
    try:
        await pune.start()
        yield Place(folder, found, pune)
    finally:
        await pune.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mumbai(place: Place) -> AsyncIterator[Site]:
    assert join(place, "mumbai", token(place, "--site", "mumbai"), place.bases[1]) == ""
    site = opened(place.folder / "mumbai")
    try:
        await site.start()
        yield site
    finally:
        await site.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def witness(place: Place, mumbai: Site) -> AsyncIterator[Site]:
    assert join(place, "umpire", token(place), place.bases[2], verb="witness") == ""
    site = Site(load(place.folder / "umpire"))
    yield site  # the first test of it starts it
    await site.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def dr(place: Place, witness: Site) -> AsyncIterator[Site]:
    await until("the control plane is kept by three", lambda: _formed(place.pune.config, 3))
    assert join(place, "dr", token(place), place.bases[3]) == ""
    site = opened(place.folder / "dr")
    try:
        await site.start()
        yield site
    finally:
        await site.stop()


async def _formed(config: Config, count: int) -> bool:
    return len(formed(config)) == count


async def test_who_is_refused_hears_why_at_both_ends(place: Place) -> None:
    base, log = place.bases[1], place.pune.config.dir / "up.log"
    good = read(token(place, "--site", "mumbai"))

    def refused(given: JoinToken, *words: str, name: str = "mumbai", here: str) -> None:
        complaint = join(place, name, written(given), base, *words)
        assert here in complaint and complaint.count("\n") == 1, complaint
        assert not (place.folder / name).exists()

    refused(msgspec.structs.replace(good, secret="x" * 43), here="not given by this organisation")
    assert "not given by this organisation" in log.read_text()
    refused(good, name="bombay", here="for a site named mumbai")
    assert "for a site named mumbai" in log.read_text()
    refused(msgspec.structs.replace(good, ca="0" * 64), here="of another organisation")
    refused(msgspec.structs.replace(good, port=base), here="nothing answers at")
    taken = read(token(place))
    assert "There is a site named pune already" in said("--dir", str(place.pune.config.dir), "cluster", "token", "--site", "pune").stderr
    short = read(token(place, "--expires", "30m"))
    assert short.expires_at < taken.expires_at
    with pytest.raises(TokenRefused, match="not a join token"):
        read("hello")
    with pytest.raises(TokenRefused, match="damaged"):
        read(written(good)[:-9])
    assert "not a join token" in join(place, "mumbai", "hello", base)


async def test_a_token_that_expired(place: Place) -> None:
    given = await api(place.pune.config, "POST", "/api/v1/cluster/tokens", {"expires_s": 0.01})
    complaint = join(place, "late", given["token"], place.bases[1])
    assert "This token expired at" in complaint and "This token expired at" in (place.pune.config.dir / "up.log").read_text()


async def test_clocks_that_differ_are_both_told(place: Place) -> None:
    good = read(token(place))
    plan = Plan(place.folder / "clock", "clock", "", "clock.example.org", "127.0.0.1", place.bases[1], host="127.0.0.1")
    now = datetime.datetime.now(datetime.UTC)
    with pytest.raises(ConfigRefused, match=f"there it is {now + NEVER:%Y-%m-%d %H:}.*here {now:%Y-%m-%d %H:}"):
        await enter(plan, good, now + NEVER)
    assert "The clocks differ" in (place.pune.config.dir / "up.log").read_text()


async def test_a_release_that_does_not_match_and_a_key_that_is_none(place: Place) -> None:
    good = read(token(place))
    request, _ = certs.make_request("x")
    _, leaf_key = nkeys.make()
    ask = {
        "id": good.id, "secret": good.secret, "site": "new", "host": "127.0.0.1", "port_base": 1, "hostname": "n.example.org",
        "link_request": request.decode(), "server_request": request.decode(), "leaf_key": leaf_key, "version": "9.7.0",
        "clock": datetime.datetime.now(datetime.UTC).timestamp(),
    }  # fmt: skip
    config = place.pune.config
    assert "Release 9.7.0 cannot run with release" in (await api(config, "POST", JOIN_PATH, ask, token=False))["detail"]
    assert "Release 9.7.0 cannot run with release" in (config.dir / "up.log").read_text()
    ask["version"] = (await api(config, "GET", JOIN_PATH, token=False))["version"]
    wrong = await api(config, "POST", JOIN_PATH, ask | {"leaf_key": "SU" + leaf_key[2:]}, token=False)
    assert "engine is none" in wrong["detail"]
    damaged = await api(config, "POST", JOIN_PATH, ask | {"link_request": "hello"}, token=False)
    assert "No certificate can be given" in damaged["detail"]
    named = await api(config, "POST", JOIN_PATH, ask | {"site": "pune"}, token=False)
    assert "There is a site named pune already" in named["detail"]
    place_taken = await api(config, "POST", JOIN_PATH, ask | {"port_base": place.bases[0]}, token=False)
    assert "give another --host or --port-base" in place_taken["detail"]
    early = await api(config, "POST", JOIN_PATH, ask | {"role": "witness"}, token=False)
    assert "A witness decides between two sites" in early["detail"]


async def api(config: Config, method: str, path: str, body: object = None, *, token: bool = True) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {config.api_token}"} if token else {}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{config.ports.http}", headers=headers) as http:
        async with http.request(method, path, json=body) as answer:
            return dict(await answer.json())


async def test_a_second_site_comes_while_somebody_is_signed_in(place: Place, mumbai: Site) -> None:
    anna = await person(place.pune, "anna")
    client = await signed_in(place.pune, anna)
    sender = await Smtp.connect(place.pune.config.ports.smtp)
    assert await sender.send([anna], message(1)) == 250
    before = await until_alike([client, await signed_in(mumbai, anna)], 1)
    assert [uid for uid, *_ in before.rows] == [1]
    certificate = certs.Certificate(mumbai.config.tls.link_certificate, mumbai.config.tls.link_key)
    assert certificate.key_matches and certificate.site == "mumbai"
    assert not mumbai.config.tls.ca_key.exists(), "the key of the authority does not leave its site"
    assert join(place, "again", token(place), place.bases[1]).count("port base") == 1
    sender.close()


async def test_certificates_of_a_site_that_joined_are_renewed_by_the_first_one(place: Place, mumbai: Site) -> None:
    config = mumbai.config
    renew = ("--dir", str(config.dir), "certificate", "renew")
    alone = said(*renew)
    assert alone.returncode == 1 and "the authority's key is at pune" in alone.stderr
    wrong = said(*renew, "--token", token(place, "--site", "fourth"))
    assert "for a site named fourth, not mumbai" in wrong.stderr
    before, old = certs.pin(config.tls.link_certificate.read_bytes()), config.tls.link_certificate.read_bytes()
    done = said(*renew, "--token", token(place, "--site", "mumbai", "--renew"))
    assert done.returncode == 0, done.stderr
    fresh = config.tls.link_certificate.read_bytes()
    assert fresh != old and certs.pin(fresh) == before
    anna = await person(place.pune, "carol")
    assert (await seen(await signed_in(mumbai, anna))).rows == ()
    here = said("--dir", str(place.pune.config.dir), "certificate", "renew")
    assert here.returncode == 0, here.stderr
    async with connected(config) as connection:
        await connection.request("$JS.site-pune.API.STREAM.INFO.EV-directory-1", timeout_s=SEEN_S_MAX)


async def test_a_witness_makes_three_while_people_write_and_no_session_is_dropped(place: Place, mumbai: Site, witness: Site) -> None:
    ben = await person(place.pune, "ben")
    clients = [await signed_in(site, ben) for site in (place.pune, mumbai)]
    sender = await Smtp.connect(place.pune.config.ports.smtp)
    assert formed(place.pune.config) == ("pune",)
    starting = asyncio.create_task(witness.start())
    began = asyncio.get_running_loop().time()
    number, longest = 0, 0.0
    while any(len(formed(site.config)) < 3 for site in (place.pune, mumbai, witness)):
        at = asyncio.get_running_loop().time()
        assert await sender.send([ben], message(number)) == 250
        number, longest = number + 1, max(longest, asyncio.get_running_loop().time() - at)
        assert at - began < SEEN_S_MAX, "the control plane is kept by three"
    await starting
    print(f"\n{number} messages while the control plane moved; the slowest took {longest:.2f} s")
    for _ in range(3):
        assert await sender.send([ben], message(number)) == 250
        number += 1
    assert len((await until_alike(clients, number)).rows) == number
    async with connected(witness.config, member=True) as connection:
        info = await Engine(connection).info("KV_control")
    assert info["config"]["num_replicas"] == 3
    names = {info["cluster"]["leader"], *(each["name"] for each in info["cluster"]["replicas"])}
    assert names == {"backbone-pune", "backbone-mumbai", "backbone-umpire"}
    assert not (witness.config.run_dir / "worker-0.pid").exists()


async def heard(site: Config, by: Config, subject: str) -> list[str]:
    """What a site's engine hears on a subject on which another one speaks."""
    got: list[str] = []

    async def arrived(message: Arrived) -> None:
        if message.data == b"secret":  # its own site's answers it hears anyway
            got.append(message.subject)

    async with connected(site) as thief, connected(by) as speaker:
        await thief.subscribe(subject, arrived)
        await asyncio.sleep(HEARD_S / 2)  # interest travels
        for _ in range(5):
            await speaker.publish(subject.replace(">", "x").replace("*", "x"), b"secret")
            await asyncio.sleep(HEARD_S / 5)
    return got


@pytest.mark.parametrize(
    "subject",
    [
        "$JS.backbone.API.$KV.control.members",
        "$JS.backbone.API.$KV.control.token.x",
        "$JS.backbone.API.$KV.control.node.pune.pune-0",
        "$JS.backbone.API.$KV.control.kept.mail-pune-1.mumbai",
        "$JS.backbone.API.STREAM.DELETE.KV_control",
        "$JS.backbone.API.STREAM.UPDATE.KV_control",
        "$JS.backbone.API.STREAM.PURGE.KV_control",
        "$JS.site-pune.API.STREAM.DELETE.EV-directory-1",
        "$JS.site-pune.API.STREAM.PURGE.EV-directory-1",
        "$JS.site-pune.API.STREAM.SNAPSHOT.EV-directory-1",
        "$JS.site-pune.API.STREAM.MSG.DELETE.EV-directory-1",
        "$JS.site-pune.API.CONSUMER.CREATE.EV-directory-1",
        "ev.directory.1.x",
    ],
)
async def test_what_a_stolen_site_may_not_say(dr: Site, subject: str) -> None:
    async with connected(dr.config) as thief:
        with pytest.raises((NobodyThere, Unreachable)):
            await thief.request(subject, b"{}", timeout_s=HEARD_S)


@pytest.mark.parametrize("subject", ["_INBOX.pune.>", "bl.pune", "dg.pune", "cs.pune", "fc.pune.x", "$JS.site-pune.API.>", "rc.pune.x"])
async def test_what_a_stolen_site_may_not_hear(mumbai: Site, dr: Site, subject: str) -> None:
    assert await heard(dr.config, mumbai.config, subject) == []


async def test_what_every_site_must_say_and_hear(mumbai: Site, dr: Site) -> None:
    assert await heard(dr.config, mumbai.config, "mk.some") != []


async def test_one_that_is_linked_and_no_more_is_shut_out_too(place: Place, dr: Site) -> None:
    """Its engine is all that runs of it, as a thief would have it: the link that it has already is ended."""
    assert join(place, "goa", token(place), place.bases[4]) == ""
    config = load(place.folder / "goa")
    config.run_dir.mkdir()
    config.log_dir.mkdir()
    engine = await Child.start(await nats.prepare(config), config.run_dir)
    try:
        await engine.until_ready()
        async with connected(config) as thief:
            await until("it is linked", lambda: _answered(thief))
            done = said("--dir", str(place.pune.config.dir), "cluster", "revoke", "goa", "--yes")
            assert done.returncode == 0, done.stderr
            await until("its link is ended", lambda: _silent(thief))
            await until("it is let in nowhere", lambda: _in((config.log_dir / "nats.log").read_text(), "Authorization Violation"))
            assert not await _answered(thief)
    finally:
        await engine.stop()
    gus = await person(place.pune, "gill")
    assert (await seen(await signed_in(dr, gus))).rows == (), "the others are linked again"


async def _silent(connection: Connection) -> bool:
    return not await _answered(connection)


async def _answered(connection: Connection) -> bool:
    try:
        await connection.request("$JS.site-pune.API.STREAM.INFO.EV-directory-1", timeout_s=HEARD_S)
    except Unreachable:
        return False
    return True


async def test_a_stolen_site_is_shut_out_by_one_command(place: Place, mumbai: Site, dr: Site) -> None:
    """One that kept the control plane too: another site takes its place."""
    gus = await person(place.pune, "gus")
    clients = [await signed_in(site, gus) for site in (place.pune, dr)]
    session = f"a AUTHENTICATE EXTERNAL {base64.b64encode(gus.encode()).decode()}"
    assert "\r\na OK [CAPABILITY" in await at_the_door(dr.config, mumbai.config, session)
    done = said("--dir", str(place.pune.config.dir), "cluster", "revoke", "mumbai", "--yes")
    assert done.returncode == 0 and "mumbai is shut out" in done.stdout, done.stderr
    await until("dr takes its place", lambda: _in(formed(dr.config), "dr"))
    await until("its member is let in nowhere", lambda: _in((place.pune.config.log_dir / "backbone.log").read_text(), "not pinned"))
    for site in (place.pune, dr):
        refused = await at_the_door(site.config, mumbai.config, session)
        assert refused.startswith("* BYE ") and "\r\na " not in refused
    sender = await Smtp.connect(place.pune.config.ports.smtp)
    for number in range(3):
        assert await sender.send([gus], message(number)) == 250
    assert len((await until_alike(clients, 3)).rows) == 3
    async with connected(mumbai.config) as thief:
        for subject in ("ap.directory.mark", "$JS.site-pune.API.STREAM.INFO.EV-directory-1"):
            with pytest.raises(Unreachable):
                await thief.request(subject, b"", timeout_s=HEARD_S)
    async with connected(mumbai.config, member=True) as thief:
        with pytest.raises(Unreachable):
            await thief.request("$KV.control.members", b"{}", timeout_s=HEARD_S)
    await until("the control plane has its replicas at those who are left", lambda: _kept_by(place.pune.config, {"pune", "umpire", "dr"}))
    roster = read_roster(place.pune.config.roster_file)
    assert roster is not None and roster.find("mumbai") is None and len(roster.voters) == 3
    again = said("--dir", str(place.pune.config.dir), "cluster", "token", "--site", "mumbai")
    assert "was removed or revoked: choose another name" in again.stderr


async def at_the_door(site: Config, thief: Config, session: str) -> str:
    """What the door for sites says to whoever has the thief's folder."""
    assert site.backbone is not None
    context = showing(thief.tls.ca, thief.tls.link_certificate, thief.tls.link_key)
    return await answers(site.backbone.of(site.site).carry_port, context, session)


async def standing(config: Config) -> dict[str, tuple[str, ...]]:
    """Of each partition, as pune sees it, its home first and then its copies."""
    seen = await api(config, "GET", "/api/v1/cluster")
    found = msgspec.convert(seen["partitions"], list[dict[str, object]])
    return {str(each["partition"]): (str(each["home"]), *(copy["site"] for copy in each["copies"])) for each in found}  # type: ignore[attr-defined]


async def _homeless(config: Config, site: str) -> bool:
    return all(site != places[0] for name, places in (await standing(config)).items() if not name.startswith("spool-"))


async def test_what_is_left_of_a_stolen_site_is_cleared_away(place: Place, mumbai: Site, dr: Site) -> None:
    """Its partitions went on at other sites by themselves; its copies wait for nobody any more."""
    config, remove = place.pune.config, ("--dir", str(place.pune.config.dir), "cluster", "site", "remove", "mumbai")
    await until("others are home of what it was home of", lambda: _homeless(config, "mumbai"))
    assert any("mumbai" in places for places in (await standing(config)).values())
    done = said(*remove, "--yes")
    assert done.returncode == 0 and "what only it has is lost with it: done" in done.stdout, done.stdout + done.stderr
    assert not any("mumbai" in places for places in (await standing(config)).values())
    assert [each.split("\t")[1] for each in place.pune.cli("cluster", "status").splitlines() if each.startswith("site")] == ["pune", "dr"]
    again = said(*remove, "--plan")
    assert again.returncode == 0 and "Everything is so already" in again.stdout, again.stderr


async def test_a_site_goes_in_good_order_and_its_people_are_served_by_those_who_stay(place: Place, dr: Site) -> None:
    config, remove = place.pune.config, ("--dir", str(place.pune.config.dir), "cluster", "site", "remove", "dr")
    hal = await person(dr, "hal")
    sender = await Smtp.connect(dr.config.ports.smtp)
    assert await sender.send([hal], message(1)) == 250
    refused = said(*remove, "--plan")
    assert refused.returncode == 1 and "no quorum: 2 members of the backbone would be left" in refused.stderr, refused.stdout
    by_command = place.folder / "by-command.toml"
    by_command.write_text('topology = "active-active"\nsites = ["pune", "dr"]\nfailover = "command"\n')
    place.pune.cli("cluster", "topology", "apply", str(by_command), "--yes")
    plan = said(*remove, "--plan").stdout
    assert "mail-dr-1: home moves to pune" in plan and "spool-dr: wait until it is empty" in plan, plan
    assert (await standing(config))["mail-dr-1"][0] == "dr", "a plan changes nothing"
    done = said(*remove, "--yes")
    assert done.returncode == 0 and "dr is no member any more, and is shut out: done" in done.stdout, done.stdout + done.stderr
    places = await standing(config)
    assert not any("dr" in each for each in places.values()) and places["mail-dr-1"] == places["queue-dr"] == ("pune",)
    assert "spool-dr" not in places and "dr" not in place.pune.cli("cluster", "status").split()
    sender = await Smtp.connect(config.ports.smtp)
    assert await sender.send([hal], message(2)) == 250
    assert len((await until_alike([await signed_in(place.pune, hal)], 2)).rows) == 2
    assert '"by":' in place.pune.cli("log", "tail", "--partition", "directory", "--json").splitlines()[-1]
    own = dr.config.dir / "up.log"
    assert "this site is removed from the organisation, and is to be stopped" in own.read_text()
    await until("its supervisor says so too", lambda: _in(own.read_text(), "it is no member of the organisation any more"))
    await dr.stop()
    assert "no member of the organisation any more" in said("up", str(dr.config.dir)).stderr
    assert "was removed or revoked" in said("--dir", str(config.dir), "cluster", "site", "add", "dr").stderr


async def _kept_by(config: Config, sites: set[str]) -> bool:
    try:
        async with connected(config, member=True) as connection:
            cluster = (await Engine(connection).info("KV_control"))["cluster"]
    except Unreachable:
        return False
    current = {each["name"] for each in cluster.get("replicas", ()) if each["current"]}
    return {f"backbone-{site}" for site in sites} == {cluster.get("leader", ""), *current}


async def _in(whole: object, part: str) -> bool:
    return part in whole  # type: ignore[operator]
