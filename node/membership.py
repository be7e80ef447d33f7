"""Keeps a site's engines in step with the roster while it runs: who joins or is revoked is let in or shut out by a reload,
without a session dropped, and a member of the backbone is started where the roster says so.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from cluster.control.bucket import Bucket
from cluster.control.moving import MoveFailed
from cluster.control.roster import Roster, Rosters
from cluster.log.connection import Connection, Unreachable
from node import forming, links
from node.backbone import BackboneConfig, ConfigRefused
from node.child import ChildFailed, Spec
from node.config import Config, load
from node.engines import nats
from node.roster import follow
from node.world import SystemWorld

LOOK_EVERY_S = 1.0
CONNECT_S_MAX = 30.0
REFUSED_LOOKS = 10  # a site that has just joined is let in everywhere before
REFUSED = b"Leafnode Error 'Authorization Violation'"
REFUSED_TAIL_BYTES = 600  # of the engine's log: its last try, which it makes every second
REFUSED_S_MAX = 4.0
TURNED_AWAY = (
    "the other sites do not let this one in: it was removed or revoked while it was away, or has other keys than they know; "
    "mail that it takes in waits in its spool and goes nowhere: stop it"
)
NO_MEMBER = "this site was removed or revoked: it is no member of the organisation any more, and the others do not let it in"

log = structlog.get_logger("membership")

Say = Callable[[str, str], None]


class Running(Protocol):
    """A part that is kept running."""

    async def stop(self) -> None: ...

    async def ready(self) -> bool: ...

    def send(self, number: signal.Signals) -> None: ...


Keep = Callable[[str, Callable[[], Awaitable[Spec]]], Running]


def current(config: Config) -> Config:
    """The same, with the roster as it is now: of the rest what was read at the start holds until the next one."""
    if config.backbone is None or config.backbone.roster is None:
        return config
    return msgspec.structs.replace(config, backbone=load(config.dir).backbone)


def is_member(config: Config) -> bool:
    """Whether a member of the backbone runs here."""
    backbone = config.backbone
    if backbone is None or config.site not in (member.site for member in backbone.members):
        return False
    return backbone.roster is None or config.site in (*backbone.voters, *backbone.formed)


def is_shut_out(config: Config) -> bool:
    """Whether this site was a member and is none any more."""
    roster = config.backbone.roster if config.backbone is not None else None
    return roster is not None and roster.find(config.site) is None


def turned_away(log_file: Path, now: float) -> bool:
    """Whether this site's engine was refused a link a moment ago, by its own log. `now`: unix seconds."""
    try:
        with log_file.open("rb") as file:
            about = os.fstat(file.fileno())
            file.seek(max(0, about.st_size - REFUSED_TAIL_BYTES))
            return now - about.st_mtime < REFUSED_S_MAX and REFUSED in file.read()
    except OSError:
        return False


class Membership:
    """`keep`: starts to keep a part. `say`: (part, what) for the operator."""

    def __init__(self, config: Config, keep: Keep, say: Say) -> None:
        self._config = config
        self._keep = keep
        self._say = say
        self._member: Running | None = None
        self._log: Running | None = None
        self._awaited: tuple[str, ...] = ()
        self._told = 0  # number of the roster that the operator was told of
        self._forgotten: set[str] = set()
        self._refused = 0  # looks, one after the other, at which no link was let in
        self._closed: set[str] | None = None  # who was shut out before the links here were made anew

    def start_member(self) -> Running | None:
        if self._member is None and is_member(current(self._config)):
            self._member = self._keep(nats.BACKBONE_NAME, self._prepare_member)
        return self._member

    def start_log(self) -> Running | None:
        if self._config.nats.own and not self._config.witness:
            self._log = self._keep(nats.NAME, self._prepare_log)
        return self._log

    async def stop(self) -> None:
        if self._member is not None:
            await self._member.stop()

    def reload(self) -> None:
        """Certificates are read again."""
        for part in (self._member, self._log):
            if part is not None:
                part.send(signal.SIGHUP)

    async def run(self) -> None:
        """For ever."""
        config = current(self._config)
        if config.backbone is None or config.backbone.roster is None:
            return
        async with asyncio.TaskGroup() as group:
            if config.witness:
                group.create_task(self._listen(config, config.backbone))
            number = 0
            while True:
                try:
                    config = current(self._config)
                    assert config.backbone is not None and config.backbone.roster is not None
                    await self._look_whether_turned_away(config)
                    if forming.wanted(config) or forming.pending(config):
                        await self._form(config, config.backbone)
                    elif config.backbone.roster.number != number:
                        await self._apply(config, config.backbone)
                        number = config.backbone.roster.number
                except (ConfigRefused, ChildFailed, OSError, Unreachable) as error:
                    log.warning("the roster is not obeyed yet", why=str(error))
                await asyncio.sleep(LOOK_EVERY_S)

    async def _apply(self, config: Config, backbone: BackboneConfig) -> None:
        roster = backbone.roster
        assert roster is not None
        if is_shut_out(config):
            self._say("site", f"{NO_MEMBER}; it shows what it had until it is stopped")
            return
        self.start_member()
        if self._member is not None:
            changed = await _rewritten(config, nats.BACKBONE_NAME, self._prepare_member)
            if changed:
                self._member.send(signal.SIGHUP)
            await self._shut_out(config, roster, changed)
        if self._log is not None and await _rewritten(config, nats.NAME, self._prepare_log):
            self._log.send(signal.SIGHUP)
        if self._told not in (0, roster.number):
            self._say("site", f"members: {', '.join(member.site for member in roster.members)}")
        self._told = roster.number
        if roster.authority == config.site and len(backbone.formed) > 1:
            for gone in roster.revoked:
                if gone.site not in self._forgotten:
                    await forming.forget(config, gone.site)
                    self._forgotten.add(gone.site)

    async def _shut_out(self, config: Config, roster: Roster, changed: bool) -> None:
        """Raises Unreachable, OSError; then it is tried again."""
        gone = {each.site for each in roster.revoked}
        if self._closed is None and not changed:
            self._closed = gone  # Who is linked to a member that was just started may be.
        if fresh := gone - (self._closed or set()):
            await links.end_all(config)
            self._closed = (self._closed or set()) | fresh

    async def _look_whether_turned_away(self, config: Config) -> None:
        """A site that was away when it was removed hears nothing else of it."""
        refused = await asyncio.to_thread(turned_away, config.log_dir / f"{nats.NAME}.log", SystemWorld().now())
        self._refused = self._refused + 1 if refused else 0
        if self._refused == REFUSED_LOOKS and not is_shut_out(config):
            self._say("site", TURNED_AWAY)

    async def _form(self, config: Config, backbone: BackboneConfig) -> None:
        """Raises ChildFailed, OSError, Unreachable; then it is as it was, and tried again."""
        if not forming.pending(config):
            missing = await forming.missing(backbone, config.site)
            if missing:
                if missing != self._awaited:
                    self._say("site", f"the control plane stays here until these can be reached: {', '.join(missing)}")
                self._awaited = missing
                return
            self._say("site", f"the control plane goes to {', '.join(backbone.voters)}")
            await self.stop()
            self._member = None
            try:
                await forming.set_aside(config)
            except (MoveFailed, TimeoutError) as error:
                raise ChildFailed(str(error)) from None
            finally:
                self.start_member()
        assert self._member is not None
        try:
            if not await self._member.ready():
                raise forming.FormingFailed("the member does not start as one of several")
            await forming.put_in(current(config))
        except forming.FormingFailed as error:
            log.warning("the control plane stays here alone", why=str(error))
            await self.stop()
            self._member = None
            forming.give_up(config, backbone)
            self.start_member()

    async def _listen(self, config: Config, backbone: BackboneConfig) -> None:
        """A witness has no other process that hears of the roster."""
        url = f"nats://127.0.0.1:{backbone.of(config.site).client_port}"
        connection = Connection(url, config.nats.user, backbone.client_password, name="witness")
        await connection.start(CONNECT_S_MAX)
        try:
            await follow(Rosters(Bucket(connection)), config.roster_file, config.site)
        finally:
            await connection.stop()

    async def _prepare_member(self) -> Spec:
        config = current(self._config)
        assert config.backbone is not None
        return await nats.prepare_backbone(config, config.backbone)

    async def _prepare_log(self) -> Spec:
        return await nats.prepare(current(self._config))


async def _rewritten(config: Config, name: str, prepare: Callable[[], Awaitable[Spec]]) -> bool:
    """Whether the engine's configuration is another one now."""
    file = config.dir / name / "nats.conf"
    before = await asyncio.to_thread(file.read_bytes)
    await prepare()
    return await asyncio.to_thread(file.read_bytes) != before
