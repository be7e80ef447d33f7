"""From one member that keeps the control plane alone to three that keep it together, while all sites serve.

    the others' members run and wait → ours stops → its control plane is read, by an engine that nobody else reaches
    → ours starts as one of three → the control plane is put in again, with its revisions → the roster says so

Meanwhile, some seconds, nobody writes to the control plane: homes stay where they are, sessions too, and writers wait at
most until the homes have renewed their leases. An engine that stood alone cannot be one of several with what it has: its
streams are not taken over (nats-server 2.15). What was read lies in a file until all is done, so that a supervisor that
is killed on the way goes on from there.
"""

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from cluster.control import moving
from cluster.control.bucket import Bucket
from cluster.control.roster import Rosters, formed
from cluster.log.connection import Connection, Unreachable
from cluster.log.engine import Engine, EngineRefused
from node.backbone import REPLICAS, BackboneConfig
from node.child import Child
from node.config import Config
from node.engines import nats
from node.roster import note

STREAM = "KV_control"
NO_MEMBER = 10044  # the engine's: that server is no member of the cluster
SNAPSHOT_NAME = "moving.json"
ASK_S_MAX = 2.0
TRY_AGAIN_S = 0.2
CONNECT_S_MAX = 30.0
FORMED_S_MAX = 30.0

log = structlog.get_logger("forming")


class FormingFailed(Exception):
    """The text says what did not come about; all is as it was."""


def wanted(config: Config) -> bool:
    """Whether this site keeps the control plane alone and shall share it."""
    backbone = config.backbone
    return backbone is not None and backbone.formed == (config.site,) and len(backbone.voters) > 1


def pending(config: Config) -> bool:
    return _snapshot_file(config).exists()


async def missing(backbone: BackboneConfig, site: str) -> tuple[str, ...]:
    """Those of the others who shall keep it that take no connections yet, with where they would."""
    others = [backbone.of(voter) for voter in backbone.voters if voter != site]
    there = await asyncio.gather(*(_answers(other.host, other.route_port) for other in others))
    return tuple(f"{each.site} ({each.host}:{each.route_port})" for each, is_there in zip(others, there, strict=True) if not is_there)


async def set_aside(config: Config) -> None:
    """The member is stopped: reads its control plane into the file, and notes the roster that comes after it. Raises
    ChildFailed, OSError, Unreachable, moving.MoveFailed."""
    backbone = config.backbone
    assert backbone is not None and backbone.roster is not None
    spec = nats.prepare_alone(config, backbone)
    child = await Child.start(spec, config.run_dir)
    try:
        await child.until_ready()
        async with _connected(config, backbone) as connection:
            about, content = await moving.snapshot(connection, STREAM, f"_INBOX.{os.urandom(9).hex()}")
    finally:
        await child.stop()
    file = _snapshot_file(config)
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(json.dumps({"about": about, "content": content.hex()}))
    fresh.replace(file)
    note(config.roster_file, formed(backbone.roster))


async def put_in(config: Config) -> None:
    """The member runs as one of several: what was set aside is put in, if it is not there, and all are told the roster.
    Raises FormingFailed when it takes too long."""
    backbone = config.backbone
    assert backbone is not None and backbone.roster is not None
    kept = json.loads(_snapshot_file(config).read_text())
    why = ""
    try:
        async with asyncio.timeout(FORMED_S_MAX), _connected(config, backbone) as connection:
            engine, rosters = Engine(connection), Rosters(Bucket(connection))
            while True:
                try:
                    if not await _is_in(engine, rosters):
                        await connection.request("$JS.API.INFO", timeout_s=ASK_S_MAX)
                        await engine.delete_stream(STREAM)  # an empty one that a site made meanwhile
                        await moving.restore(connection, kept["about"], bytes.fromhex(kept["content"]), REPLICAS)
                    await rosters.write(backbone.roster)
                    break
                except (Unreachable, EngineRefused, moving.MoveFailed) as error:
                    why = str(error)
                    await asyncio.sleep(TRY_AGAIN_S)
    except (TimeoutError, Unreachable) as error:
        raise FormingFailed(why or str(error)) from None
    _snapshot_file(config).unlink()
    shutil.rmtree(config.dir / "backbone" / nats.STORE_ALONE, ignore_errors=True)
    log.info("the control plane is kept by several now", members=backbone.voters)


def give_up(config: Config, before: BackboneConfig) -> None:
    """As it was: alone, with the store that was left where it is."""
    assert before.roster is not None
    note(config.roster_file, before.roster)
    _snapshot_file(config).unlink(missing_ok=True)


async def forget(config: Config, gone: str) -> None:
    """Has the others keep the control plane without one that is revoked. Raises Unreachable."""
    backbone = config.backbone
    assert backbone is not None
    url = f"nats://127.0.0.1:{backbone.of(config.site).client_port}"
    connection = Connection(url, "system", config.nats.system_password, name="forming")
    await connection.start(ASK_S_MAX)
    try:
        ask = json.dumps({"peer": nats.member_name(gone)}).encode()
        answer = await connection.request("$JS.API.SERVER.REMOVE", ask, timeout_s=ASK_S_MAX)
        error = json.loads(answer.data).get("error")
        if error and error.get("err_code") != NO_MEMBER:
            raise Unreachable(f"{gone} is not forgotten yet: {error.get('description')}")
    finally:
        await connection.stop()


async def _is_in(engine: Engine, rosters: Rosters) -> bool:
    """Whether it is there with all that was put in: an empty one has no roster."""
    try:
        return await engine.exists(STREAM) and await rosters.read() is not None
    except EngineRefused as error:
        raise Unreachable(str(error)) from None


@asynccontextmanager
async def _connected(config: Config, backbone: BackboneConfig) -> AsyncIterator[Connection]:
    url = f"nats://127.0.0.1:{backbone.of(config.site).client_port}"
    connection = Connection(url, config.nats.user, backbone.client_password, name="forming")
    await connection.start(CONNECT_S_MAX)
    try:
        yield connection
    finally:
        await connection.stop()


def _snapshot_file(config: Config) -> Path:
    return config.dir / "backbone" / SNAPSHOT_NAME


async def _answers(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(ASK_S_MAX):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


