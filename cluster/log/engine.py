"""What is asked of JetStream, by its own API subjects: streams, reads, writes with an expectation. No more than we use.

The client library's own JetStream layer waits for timeouts that we do not want and knows no batched direct reads, so
the requests are made here (NATS ADR-31 direct get, ADR-50 atomic batch, ADR-8 key-value).
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from cluster.log.connection import Connection, NobodyThere, Unreachable

API_S_MAX = 5.0
ACK_S_MAX = 2.5  # then the stream itself is asked
CREATE_S_MAX = 10.0

LAST_SEQUENCE = "Nats-Expected-Last-Sequence"
WRONG_LAST_SEQUENCE = frozenset({10070, 10071, 10164})  # or wrong last message id
STREAM_NOT_FOUND = 10059
NO_MESSAGE_FOUND = 10037

_json = msgspec.json.encode


class EngineRefused(Exception):
    """The engine's no. `code`: its error code (10071: wrong last sequence…)."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code


class Message(NamedTuple):
    """To be written."""

    subject: str
    headers: dict[str, str]
    data: bytes


class Kept(NamedTuple):
    """As it lies in a stream."""

    sequence: int
    subject: str
    headers: Mapping[str, str]
    data: bytes


class Slice(NamedTuple):
    """`pending`: how many more match after these."""

    messages: list[Kept]
    pending: int


class Engine:
    def __init__(self, connection: Connection, domain: str | None = None) -> None:
        self.connection = connection
        self._prefix = f"$JS.{domain}.API" if domain else "$JS.API"

    async def create_stream(self, config: dict[str, Any]) -> None:
        """Makes it, or finds it there with the same configuration."""
        await self.api(f"STREAM.CREATE.{config['name']}", config, CREATE_S_MAX)

    async def update_stream(self, name: str, **changes: Any) -> None:
        info = await self.info(name)
        await self.api(f"STREAM.UPDATE.{name}", {**info["config"], **changes})

    async def delete_stream(self, name: str) -> None:
        """With all that is in it."""
        if await self.exists(name):
            await self.api(f"STREAM.DELETE.{name}", timeout_s=CREATE_S_MAX)

    async def info(self, name: str) -> dict[str, Any]:
        """`config`, `state` (first_seq, last_seq, messages, bytes). Raises EngineRefused(STREAM_NOT_FOUND)."""
        return await self.api(f"STREAM.INFO.{name}")

    async def exists(self, name: str) -> bool:
        try:
            await self.info(name)
        except EngineRefused as error:
            if error.code == STREAM_NOT_FOUND:
                return False
            raise
        return True

    async def last_sequence(self, name: str) -> int:
        return int((await self.info(name))["state"]["last_seq"])

    async def purge(self, name: str, subject: str, below: int) -> int:
        """Removes messages on `subject` with a sequence below `below`; how many."""
        return int((await self.api(f"STREAM.PURGE.{name}", {"filter": subject, "seq": below}, CREATE_S_MAX))["purged"])

    async def read(self, stream: str, sequence: int, count: int, subject: str = ">", bytes_max: int = 8 << 20) -> Slice:
        """Up to `count` messages on `subject` from `sequence` on. Empty when there are none."""
        ask = {"seq": sequence, "batch": count, "max_bytes": bytes_max, "next_by_subj": subject}
        answers = await self.connection.collect(f"{self._prefix}.DIRECT.GET.{stream}", _json(ask), API_S_MAX)
        end = answers.pop()
        if end.status == "404":
            return Slice([], 0)
        if end.status != "204":
            raise EngineRefused(int(end.status or 0), end.headers.get("Description", "direct read failed"))
        kept = [Kept(int(m.headers["Nats-Sequence"]), m.headers["Nats-Subject"], m.headers, m.data) for m in answers]
        before = 0
        for message, arrived in zip(kept, answers, strict=True):
            # ADR-31: each names the one sent before it, so that a lost one is noticed.
            if int(arrived.headers["Nats-Last-Sequence"]) != before:
                raise Unreachable(f"a message before {message.sequence} of {stream} was lost on the way")
            before = message.sequence
        return Slice(kept, int(end.headers.get("Nats-Num-Pending", "0")))

    async def last_on_each(self, stream: str, subjects: str, timeout_s: float = API_S_MAX) -> list[Kept]:
        """The last message on each of the `subjects`, perhaps as a replica had it a moment ago."""
        ask = _json({"multi_last": [subjects]})
        answers = await self.connection.collect(f"{self._prefix}.DIRECT.GET.{stream}", ask, timeout_s)
        end = answers.pop()
        if end.status == "404":
            return []
        if end.status != "204":
            raise EngineRefused(int(end.status or 0), end.headers.get("Description", "direct read failed"))
        return [Kept(int(m.headers["Nats-Sequence"]), m.headers["Nats-Subject"], m.headers, m.data) for m in answers]

    async def first_since(self, stream: str, subject: str, stamp: str) -> int:
        """Sequence of the first message on `subject` stored at or after `stamp` (RFC 3339), 0 = there is none."""
        ask = {"start_time": stamp, "next_by_subj": subject}
        answer = await self.connection.request(f"{self._prefix}.DIRECT.GET.{stream}", _json(ask), timeout_s=API_S_MAX)
        return 0 if answer.status else int(answer.headers["Nats-Sequence"])

    async def last_on(self, stream: str, subject: str, timeout_s: float = API_S_MAX) -> Kept | None:
        """The last message on `subject` (wildcards allowed), as the stream's leader has it."""
        return await self._leaders_message(stream, {"last_by_subj": subject}, timeout_s)

    async def next_on(self, stream: str, subject: str, sequence: int) -> Kept | None:
        """The first message on `subject` from `sequence` on, as the stream's leader has it; `read` may be answered by a
        replica that lags."""
        return await self._leaders_message(stream, {"seq": sequence, "next_by_subj": subject})

    async def _leaders_message(self, stream: str, which: dict[str, Any], timeout_s: float = API_S_MAX) -> Kept | None:
        try:
            found = (await self.api(f"STREAM.MSG.GET.{stream}", which, timeout_s))["message"]
        except EngineRefused as error:
            if error.code == NO_MESSAGE_FOUND:
                return None
            raise
        headers = _headers(base64.b64decode(found.get("hdrs", ""))) | {"Nats-Time-Stamp": found["time"]}
        return Kept(int(found["seq"]), found["subject"], headers, base64.b64decode(found.get("data", "")))

    async def write(self, message: Message, expect: Mapping[str, str], timeout_s: float = ACK_S_MAX) -> int:
        """Stores one message; its sequence. Raises EngineRefused, Unreachable."""
        try:
            answer = await self.connection.request(
                message.subject, message.data, {**message.headers, **expect}, timeout_s
            )
        except NobodyThere:
            raise Unreachable(f"no stream takes {message.subject}") from None
        return int(checked(answer.data)["seq"])

    async def write_chain(self, messages: Sequence[Message], last: int, chain_id: str) -> None:
        """One after the other without waiting in between, directly after sequence `last`. What is stored is a beginning
        of `messages`, all of it if this returns: each expects the one before by its id too, else it could land on what
        another writer put in the place of that one. So the last one's answer speaks for all. Streams with one replica only,
        others compare too early."""
        count = len(messages)
        framed = [
            {**message.headers, **_link(chain_id, index, count), LAST_SEQUENCE: str(last + index)}
            for index, message in enumerate(messages)
        ]
        for message, headers in zip(messages[:-1], framed, strict=False):
            await self.connection.publish(message.subject, message.data, headers)
        stored = await self.write(messages[-1], framed[-1])
        assert stored == last + count, f"a chain of {count} after {last} ended at {stored}"

    async def write_batch(self, messages: Sequence[Message], last: int, batch_id: str) -> None:
        """All or none, directly after sequence `last` (ADR-50: the expectation stands on the first message)."""
        connection = self.connection
        count = len(messages)
        for index, (subject, headers, data) in enumerate(messages[:-1], 1):
            framed = {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(index), **headers}
            if index == 1:
                framed[LAST_SEQUENCE] = str(last)
            await connection.publish(subject, data, framed)
        final = messages[-1]
        framed = {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(count), "Nats-Batch-Commit": "1"}
        if count == 1:
            framed[LAST_SEQUENCE] = str(last)
        stored = await self.write(final, framed)
        assert stored == last + count, f"a batch of {count} after {last} ended at {stored}"

    async def api(self, verb: str, body: dict[str, Any] | None = None, timeout_s: float = API_S_MAX) -> dict[str, Any]:
        """One question to JetStream's API. Raises EngineRefused, Unreachable."""
        data = _json(body) if body is not None else b""
        try:
            answer = await self.connection.request(f"{self._prefix}.{verb}", data, timeout_s=timeout_s)
        except NobodyThere:
            raise Unreachable("JetStream is not there") from None
        return checked(answer.data)


def _headers(raw: bytes) -> dict[str, str]:
    """NATS/1.0, then a name and a value a line."""
    lines = raw.decode().split("\r\n")[1:]
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


def _link(chain_id: str, index: int, count: int) -> dict[str, str]:
    link = {"Nats-Msg-Id": f"{chain_id}.{index}"} if index < count - 1 else {}
    return link | ({"Nats-Expected-Last-Msg-Id": f"{chain_id}.{index - 1}"} if index else {})


def checked(data: bytes) -> dict[str, Any]:
    """An answer of the API. Raises EngineRefused."""
    answer: dict[str, Any] = msgspec.json.decode(data)
    if error := answer.get("error"):
        raise EngineRefused(int(error.get("err_code", 0)), str(error.get("description", "refused")))
    return answer
