"""Brings one account's mail from a source to a running site. Whatever goes wrong with a message is told and stops no other."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import aiohttp
import msgspec

from node.importing.batches import Batches, Present, Ready
from node.importing.journal import Journal, command_id, content_key
from node.importing.model import Folder, Item, Source, SourceUnreadable
from node.importing.names import keywords, mailbox_name
from protocols.admin.moving import MESSAGES_TYPE, Announced

RETRY_S_MAX = 180.0  # a failover, a restart
RETRY_AFTER_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)

_encode = msgspec.json.Encoder().encode


class BringingStopped(Exception):
    """This account's import cannot go on. The text is one line for people."""


class Api(Protocol):
    """node.cli.client.Api."""

    async def ask(self, method: str, path: str, body: object = None, **query: str | int) -> Any: ...

    def lines(self, method: str, path: str, body: object = None, **query: str | int) -> Any: ...

    async def send(self, path: str, kind: str, pieces: Sequence[bytes], **query: str | int) -> tuple[int, Any]: ...


class Told(Protocol):
    """Hears how it goes. Called on the loop."""

    def folder(self, address: str, folder: Folder, mailbox: str, count: int) -> None: ...

    def went(self, address: str, messages: int, size: int) -> None:
        """So many more of the source's messages are dealt with, and so many bytes were sent for it."""
        ...

    def refused(self, address: str, where: str, why: str) -> None: ...

    def remarked(self, address: str, text: str) -> None: ...


class Wanted(NamedTuple):
    """`renames`: by the source's name, "/" between levels, what it is called here; empty = it is left out."""

    address: str
    renames: Mapping[str, str]


class Outcome(NamedTuple):
    """`found`: in the mailbox already, or brought before. `failed`: folders that could not be read to their end."""

    imported: int = 0
    found: int = 0
    refused: int = 0
    failed: int = 0
    size: int = 0


class Planned(NamedTuple):
    folder: Folder
    mailbox: str
    messages: int


class Bringing:
    def __init__(self, api: Api, source: Source, journal: Journal, wanted: Wanted, told: Told) -> None:
        self._api = api
        self._source = source
        self._journal = journal
        self._wanted = wanted
        self._told = told
        self._outcome = Outcome()
        self._present: dict[str, Present] = {}
        self._dropped: set[str] = set()

    async def run(self) -> Outcome:
        """Raises BringingStopped, SourceUnreadable (before anything was brought), and what the API raises."""
        plan = await planned(self._api, self._source, self._wanted)
        for one in plan:
            self._told.folder(self._wanted.address, one.folder, one.mailbox, one.messages)
        for one in plan:
            box = await self._box(one)
            if box is not None:
                await self._folder(one.folder, box)
        return self._outcome

    async def _box(self, one: Planned) -> str | None:
        """The id of the mailbox of that name, made if it is not there; None where the site refuses it."""
        new = {"name": one.mailbox, "special_use": one.folder.special_use, "subscribed": one.folder.subscribed}
        path = _path("accounts", self._wanted.address, "mailboxes")
        status, box = await self._sent(path, "application/json", [_encode(new)])
        if status >= 400 or "id" not in box:
            self._refuse(
                one.folder.where, f"no mailbox {one.mailbox!r}: {_said(status, box)}; rename it with --map", failed=1
            )
            return None
        if box["id"] not in self._present:
            self._present[box["id"]] = await self._there(box) if box["messages"] else Present()
        return str(box["id"])

    async def _there(self, box: dict[str, Any]) -> Present:
        present = Present()
        path = _path("accounts", self._wanted.address, "mailboxes", box["id"], "contents")
        async for line in self._api.lines("GET", path):
            present.there.update(content_key(bytes.fromhex(found), at) for found, at in line["items"])
        return present

    async def _folder(self, folder: Folder, box: str) -> None:
        batches = Batches(self._source, folder, box, self._journal, self._present[box])
        ahead = asyncio.create_task(asyncio.to_thread(batches.gather))
        try:
            while True:
                ready = await ahead
                if not ready.last:  # it is read while this one is sent
                    ahead = asyncio.create_task(asyncio.to_thread(batches.gather))
                await self._batch(ready, box)
                if ready.last:
                    break
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)
        if ready.failed:
            self._refuse(folder.where, ready.failed, failed=1)

    async def _batch(self, ready: Ready, box: str) -> None:
        address = self._wanted.address
        for bad in ready.bad:
            self._refuse(bad.where, bad.why)
        found = len(ready.found) + ready.known
        self._outcome = self._outcome._replace(found=self._outcome.found + found)
        self._journal.note(ready.found)
        if dealt_with := found + len(ready.bad):
            self._told.went(address, dealt_with, 0)
        if not ready.items:
            return
        path = _path("accounts", address, "mailboxes", box, "messages")
        command = command_id(self._journal.nonce, [key for key, _ in ready.keys]).hex()
        shown = "true" if ready.last else "false"  # at a folder's end its mail is to be seen
        pieces = self._framed(ready.items)
        status, answer = await self._sent(path, MESSAGES_TYPE, pieces, command=command, shown=shown)
        if status >= 400:
            raise BringingStopped(f"{address}: {_said(status, answer)}")
        refused = {one["number"]: one["detail"] for one in answer["refused"]}
        for number, why in refused.items():
            self._refuse(ready.items[number].where, why)
        self._journal.note([pair for n, pair in enumerate(ready.keys) if n not in refused])
        size = sum(len(item.content) for n, item in enumerate(ready.items) if n not in refused)
        there = len(ready.items) - len(refused)
        before = self._outcome
        self._outcome = before._replace(
            imported=before.imported + (0 if answer["repeated"] else there),
            found=before.found + (there if answer["repeated"] else 0),
            size=before.size + size,
        )
        self._told.went(address, len(ready.items), size)

    def _framed(self, items: Sequence[Item]) -> list[bytes]:
        pieces = []
        for item in items:
            kept, dropped = keywords(item.keywords)
            if new := set(dropped) - self._dropped:
                self._dropped |= new
                names = ", ".join(sorted(map(repr, new)))
                self._told.remarked(self._wanted.address, f"{item.where}: keywords that cannot be kept: {names}")
            line = Announced(len(item.content), item.internal_at, item.internal_zone, item.flags, kept)
            pieces += [_encode(line) + b"\n", item.content]
        return pieces

    async def _sent(self, path: str, kind: str, pieces: Sequence[bytes], **query: str) -> tuple[int, Any]:
        """Asked again, under the same command id, while the site is away: a failover or a restart ends no import."""
        loop = asyncio.get_running_loop()
        until, tries = loop.time() + RETRY_S_MAX, 0
        while True:
            error: Exception | None = None
            try:
                status, answer = await self._api.send(path, kind, pieces, **query)
            except (aiohttp.ClientError, TimeoutError) as failed:
                status, answer, error = 503, {}, failed
            if status not in (202, 429, 503) or loop.time() > until:
                if error is not None:
                    raise error
                return status, answer
            await asyncio.sleep(RETRY_AFTER_S[min(tries, len(RETRY_AFTER_S) - 1)])
            tries += 1

    def _refuse(self, where: str, why: str, *, failed: int = 0) -> None:
        before = self._outcome
        self._outcome = before._replace(refused=before.refused + 1 - failed, failed=before.failed + failed)
        self._told.refused(self._wanted.address, where, why)


async def planned(api: Api, source: Source, wanted: Wanted) -> list[Planned]:
    """What would be brought where. Raises SourceUnreadable, and what the API raises."""
    boxes = (await api.ask("GET", _path("accounts", wanted.address, "mailboxes")))["items"]
    uses = {box["special_use"]: box["name"] for box in boxes if box["special_use"]}
    found = []
    for folder in await asyncio.to_thread(source.folders):
        plain = "/".join(folder.levels)
        mailbox = mailbox_name(folder.levels, wanted.renames)
        if wanted.renames.get(plain) == "":
            continue
        if plain not in wanted.renames and folder.special_use in uses:
            mailbox = uses[folder.special_use]  # RFC 6154: what serves the same use is the same mailbox
        found.append(Planned(folder, mailbox, await asyncio.to_thread(_counted, source, folder)))
    return found


def _counted(source: Source, folder: Folder) -> int:
    """0 where it cannot be read: that is told when it is read."""
    try:
        return source.count(folder)
    except SourceUnreadable:
        return 0


def _path(*parts: str) -> str:
    return "/api/v1/" + "/".join(quote(part, safe="@:") for part in parts)


def _said(status: int, answer: Any) -> str:
    return (
        str(answer.get("detail") or f"the site answered {status}") if isinstance(answer, dict) else f"status {status}"
    )
