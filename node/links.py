"""The links of other sites to this site's member of the backbone, ended. The engine (2.15) reads again who may come when it is
told to, and keeps the links that are there, of those who may not come any more too; routes alone it closes by itself.
"""

import asyncio
import datetime
import json
from typing import Any

import structlog

from cluster.log.connection import Connection, Unreachable
from node.config import Config
from node.engines import nats

ASK_S_MAX = 2.0
READ_S_MAX = 10.0  # for the engine to have read its configuration
LOOK_EVERY_S = 0.1
LINKS_MAX = 4096

log = structlog.get_logger("links")


async def end_all(config: Config) -> None:
    """As soon as the engine goes by its configuration of now. A site that is let in links itself again within about a second;
    whose name a link bears says nothing, so none is spared. Raises Unreachable, OSError."""
    assert config.backbone is not None
    written = (config.dir / nats.BACKBONE_NAME / "nats.conf").stat().st_mtime
    url = f"nats://127.0.0.1:{config.backbone.of(config.site).client_port}"
    connection = Connection(url, "system", config.nats.system_password, name="links")
    await connection.start(ASK_S_MAX)
    try:
        server = await _read(connection, config.site, written)
        asked = json.dumps({"limit": LINKS_MAX}).encode()
        for link in (await _asked(connection, f"{server}.LEAFZ", asked))["data"].get("leafs") or []:
            await _asked(connection, f"{server}.KICK", json.dumps({"cid": link["id"]}).encode())
        log.info("all sites' links are made anew")
    finally:
        await connection.stop()


async def _read(connection: Connection, site: str, written: float) -> str:
    """The engine's id, when it has read what was written then, or should have."""
    deadline = asyncio.get_running_loop().time() + READ_S_MAX
    while True:
        own = {"server_name": nats.member_name(site), "exact_match": True}
        about = await _asked(connection, "PING.VARZ", json.dumps(own).encode())
        read_at = datetime.datetime.fromisoformat(about["data"]["config_load_time"]).timestamp()
        if read_at >= written or asyncio.get_running_loop().time() > deadline:
            return str(about["server"]["id"])
        await asyncio.sleep(LOOK_EVERY_S)


async def _asked(connection: Connection, what: str, body: bytes) -> Any:
    answer = json.loads((await connection.request(f"$SYS.REQ.SERVER.{what}", body, timeout_s=ASK_S_MAX)).data)
    if "error" in answer:
        raise Unreachable(f"the engine does not end the links: {answer['error']}")
    return answer
