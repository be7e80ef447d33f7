"""A key-value bucket with compare-and-set, in the engine's own form (NATS ADR-8), so that its tools can read it.

The client library's KeyValue writes to subjects that leaf links deny and drops the time to live on updates; we need
neither its watches nor its history, so this is all there is.
"""

from typing import NamedTuple, Protocol

from cluster.log.connection import Connection, NobodyThere, Unreachable
from cluster.log.engine import ACK_S_MAX, WRONG_LAST_SEQUENCE, Engine, EngineRefused, Kept, Message

READ_S_MAX = 1.5  # it is small, and whoever asks asks again
# Any replica answers `every`. One that was cut off a moment ago is still asked in its turn, for as long as the routes to it
# are not known to be dead (some 5 s, seen): another one is more likely to answer than that one to come back.
ASKED_AGAIN_AFTER_S = (0.4, 0.4, READ_S_MAX - 0.8)


class Conflict(Exception):
    """The key is not at the revision that was expected: someone else was faster."""


class Entry(NamedTuple):
    """`revision` 0 and an empty value: there is no such key. `written`: the revision of the last write, a delete too."""

    revision: int
    value: bytes
    written: int


ABSENT = Entry(0, b"", 0)


class Keys(Protocol):
    """The port. Every call raises Unreachable when the bucket does not answer: a write may then have been done."""

    async def get(self, key: str) -> Entry: ...

    async def every(self, prefix: str) -> dict[str, Entry]:
        """All keys that begin with `prefix` (whole tokens, with the dot), perhaps as they were a moment ago."""
        ...

    async def put(self, key: str, value: bytes, after: int, timeout_s: float = ACK_S_MAX) -> int:
        """Writes if the key's last write was `after` (Entry.written); the new revision. Raises Conflict."""
        ...

    async def delete(self, key: str, after: int) -> None:
        """Raises Conflict."""
        ...


class Bucket:
    """`domain`: of the engine that keeps it, None = that of the server we are connected to."""

    def __init__(
        self, connection: Connection, name: str = "control", *, domain: str | None = None, replicas: int = 1
    ) -> None:
        self._engine = Engine(connection, domain)
        self._name = name
        self._replicas = replicas
        # Leaf links carry no bare $KV: a write for another domain goes by that domain's API.
        self._door = f"$JS.{domain}.API.$KV.{name}" if domain else f"$KV.{name}"

    async def ensure(self) -> None:
        await self._engine.create_stream(
            {
                "name": f"KV_{self._name}",
                "subjects": [f"$KV.{self._name}.>"],
                "storage": "file",
                "num_replicas": self._replicas,
                "max_msgs_per_subject": 1,
                "discard": "new",
                "allow_direct": True,
                "allow_rollup_hdrs": True,
                "deny_delete": True,
            }
        )

    async def get(self, key: str) -> Entry:
        try:
            kept = await self._engine.last_on(f"KV_{self._name}", f"$KV.{self._name}.{key}", READ_S_MAX)
        except EngineRefused as error:
            raise Unreachable(str(error)) from error
        return ABSENT if kept is None else _entry(kept)

    async def every(self, prefix: str) -> dict[str, Entry]:
        subjects, silent = f"$KV.{self._name}.", Unreachable("never asked")
        for patience_s in ASKED_AGAIN_AFTER_S:
            try:
                found = await self._engine.last_on_each(f"KV_{self._name}", f"{subjects}{prefix}>", patience_s)
                return {kept.subject.removeprefix(subjects): _entry(kept) for kept in found}
            except NobodyThere:
                raise
            except EngineRefused as error:
                raise Unreachable(str(error)) from error
            except Unreachable as error:
                silent = error
        raise silent

    async def put(self, key: str, value: bytes, after: int, timeout_s: float = ACK_S_MAX) -> int:
        return await self._write(key, value, after, {}, timeout_s)

    async def delete(self, key: str, after: int) -> None:
        await self._write(key, b"", after, {"KV-Operation": "DEL"}, ACK_S_MAX)

    async def _write(self, key: str, value: bytes, after: int, headers: dict[str, str], timeout_s: float) -> int:
        expect = {"Nats-Expected-Last-Subject-Sequence": str(after)}
        try:
            return await self._engine.write(Message(f"{self._door}.{key}", headers, value), expect, timeout_s)
        except EngineRefused as error:
            if error.code in WRONG_LAST_SEQUENCE:
                raise Conflict(key) from None
            raise Unreachable(str(error)) from error


def _entry(kept: Kept) -> Entry:
    deleted = bool(kept.headers.get("KV-Operation"))
    return Entry(0, b"", kept.sequence) if deleted else Entry(kept.sequence, kept.data, kept.sequence)


class MemoryKeys:
    """The same in memory, for laws and simulation."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._revision = 0

    async def get(self, key: str) -> Entry:
        return self._entries.get(key, ABSENT)

    async def every(self, prefix: str) -> dict[str, Entry]:
        return {key: entry for key, entry in self._entries.items() if key.startswith(prefix)}

    async def put(self, key: str, value: bytes, after: int, timeout_s: float = ACK_S_MAX) -> int:
        revision = self._next(key, after)
        self._entries[key] = Entry(revision, value, revision)
        return revision

    async def delete(self, key: str, after: int) -> None:
        revision = self._next(key, after)
        self._entries[key] = Entry(0, b"", revision)

    def _next(self, key: str, after: int) -> int:
        if self._entries.get(key, ABSENT).written != after:
            raise Conflict(key)
        self._revision += 1
        return self._revision
