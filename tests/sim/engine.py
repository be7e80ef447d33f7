"""JetStream in memory, as far as we use it: one domain's streams, their API, reads, and writes with an expectation.

It answers with the same bytes, codes and headers as nats-server 2.15; test_engine.py plays one script against both. It
knows no network and no disk: world/network.py brings what is asked, and says when a write has reached the disk.
"""

import base64
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

BATCH_IDLE_S_MAX = 10.0  # then the engine forgets a batch that was not committed
BATCH_MESSAGES_MAX = 1000
TAKERS_KEPT_MAX = 1000

STREAM_NOT_FOUND = 404, 10059, "stream not found"
NO_MESSAGE = 404, 10037, "no message found"
NAME_IN_USE = 400, 10058, "stream name already in use with a different configuration"
OVERLAP = 400, 10065, "subjects overlap with an existing stream"
BATCH_INCOMPLETE = 400, 10176, "atomic publish batch is incomplete"
BATCH_TOO_LARGE = 400, 10199, "atomic publish batch is too large: 1000"
WRONG_SEQUENCE, WRONG_ID = 10071, 10070

_DEFAULTS: dict[str, Any] = {
    "retention": "limits", "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": -1,
    "max_msg_size": -1, "discard": "old", "num_replicas": 1, "duplicate_window": 120_000_000_000, "compression": "none",
    "allow_direct": False, "mirror_direct": False, "sealed": False, "deny_delete": False, "deny_purge": False,
    "allow_rollup_hdrs": False, "consumer_limits": {}, "allow_msg_ttl": False,
}  # fmt: skip


class Answer(NamedTuple):
    headers: Mapping[str, str]
    data: bytes

    @property
    def status(self) -> str:
        return self.headers.get("Status", "")


class Stored(NamedTuple):
    """`at_ns`: unix time by the engine's clock."""

    sequence: int
    subject: str
    headers: dict[str, str]
    data: bytes
    at_ns: int


class _Batch:
    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, str], bytes]] = []
        self.touched_at = 0.0


def matches(pattern: str, subject: str) -> bool:
    """Of the wildcards only a `>` at the end."""
    if pattern == ">":
        return True
    return subject.startswith(pattern[:-1]) if pattern.endswith(".>") else subject == pattern


class Stream:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = {**_DEFAULTS, **config}
        self.asked = config
        self.messages: list[Stored] = []
        self.last = 0
        self.created_ns = 0
        self.last_id = ""
        self.ids: dict[str, tuple[int, float]] = {}
        self.batches: dict[str, _Batch] = {}

    def copy(self) -> "Stream":
        """As it lies on the disk: what is only in memory is gone."""
        made = Stream(self.asked)
        made.config = dict(self.config)
        made.messages, made.last, made.created_ns = list(self.messages), self.last, self.created_ns
        made.last_id, made.ids = self.last_id, dict(self.ids)
        return made

    def index(self, sequence: int) -> int:
        return bisect_left(self.messages, sequence, key=_sequence)

    def last_on(self, pattern: str) -> Stored | None:
        return next((each for each in reversed(self.messages) if matches(pattern, each.subject)), None)

    def add(self, subject: str, headers: dict[str, str], data: bytes, at_ns: int) -> None:
        self.last += 1
        self.messages.append(Stored(self.last, subject, headers, data, at_ns))
        if self.config["max_msgs_per_subject"] == 1:
            older = self.messages[:-1]
            self.messages[:-1] = [each for each in older if each.subject != subject]


class Streams:
    """One domain. `now_ns`: the engine's wall clock, that somebody may set; `uptime`: seconds, never set."""

    def __init__(self, domain: str, now_ns: Callable[[], int], uptime: Callable[[], float]) -> None:
        self.domain = domain
        self._now_ns = now_ns
        self._uptime = uptime
        self.streams: dict[str, Stream] = {}
        self._takers: dict[str, Stream | None] = {}  # by subject, until streams change

    def put_back(self, streams: Mapping[str, Stream]) -> None:
        """What a backup holds, in the place of what is here."""
        self.streams = {name: stream.copy() for name, stream in streams.items()}
        self._takers.clear()

    def copy(self) -> dict[str, Stream]:
        return {name: stream.copy() for name, stream in self.streams.items()}

    # -- the API -------------------------------------------------------------------------------------------------------
    def api(self, verb: str, body: bytes) -> list[Answer] | None:
        """The answers to a request on `$JS.API.<verb>`; None: nobody is there for it."""
        asked: dict[str, Any] = msgspec.json.decode(body) if body else {}
        word, _, name = verb.rpartition(".")
        stream = self.streams.get(name)
        match word:
            case "STREAM.CREATE":
                return [_json("stream_create", self._create(name, asked))]
            case "STREAM.UPDATE":
                return [_json("stream_update", self._update(stream, asked))]
            case "STREAM.INFO":
                info = _error(STREAM_NOT_FOUND) if stream is None else self._info(stream)
                return [_json("stream_info", {**info, "total": 0, "offset": 0, "limit": 0})]
            case "STREAM.DELETE":
                return [_json("stream_delete", self._delete(name))]
            case "STREAM.PURGE":
                return [_json("stream_purge", _purge(stream, asked))]
            case "STREAM.MSG.GET":
                return [_json("stream_msg_get", _leaders_message(stream, asked))]
            case "DIRECT.GET":
                return _direct(name, stream, asked) if stream is not None else None
        raise NotImplementedError(verb)

    def _create(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        there = self.streams.get(name)
        if there is not None:
            same = there.config == {**_DEFAULTS, **config}
            return self._info(there) if same else _error(NAME_IN_USE)
        if self._overlaps(name, config["subjects"]):
            return _error(OVERLAP)
        made = self.streams[name] = Stream(config)
        made.created_ns = self._now_ns()
        self._takers.clear()
        return self._info(made)

    def _update(self, stream: Stream | None, config: dict[str, Any]) -> dict[str, Any]:
        if stream is None:
            return _error(STREAM_NOT_FOUND)
        if self._overlaps(str(stream.config["name"]), config["subjects"]):
            return _error(OVERLAP)
        stream.asked = config
        stream.config = {**_DEFAULTS, **config}
        self._takers.clear()
        return self._info(stream)

    def _delete(self, name: str) -> dict[str, Any]:
        if self.streams.pop(name, None) is None:
            return _error(STREAM_NOT_FOUND)
        self._takers.clear()
        return {"success": True}

    def _overlaps(self, name: str, subjects: Sequence[str]) -> bool:
        taken = [one for each, stream in self.streams.items() if each != name for one in stream.config["subjects"]]
        return any(matches(a, b.removesuffix(">")) or matches(b, a.removesuffix(">")) for a in taken for b in subjects)

    def _info(self, stream: Stream) -> dict[str, Any]:
        messages = stream.messages
        first = messages[0].sequence if messages else (stream.last + 1 if stream.last else 0)
        size = sum(len(each.data) + len(each.subject) for each in messages)
        state = {"messages": len(messages), "bytes": size, "first_seq": first, "last_seq": stream.last}
        return {"config": stream.config, "created": _stamp(stream.created_ns), "state": state, "domain": self.domain}

    # -- writing -------------------------------------------------------------------------------------------------------
    def taker(self, subject: str) -> Stream | None:
        if subject not in self._takers:
            if len(self._takers) >= TAKERS_KEPT_MAX:
                self._takers.clear()
            taking = (s for s in self.streams.values() if any(matches(p, subject) for p in s.config["subjects"]))
            self._takers[subject] = next(taking, None)
        return self._takers[subject]

    def store(self, stream: Stream, subject: str, headers: Mapping[str, str], data: bytes) -> Answer:
        """Checked, and on the disk when this returns. An empty answer: a batch goes on."""
        if "Nats-Batch-Id" in headers:
            return self._batched(stream, subject, dict(headers), data)
        return self._acked(stream, self._one(stream, subject, dict(headers), data))

    def _acked(self, stream: Stream, outcome: dict[str, Any]) -> Answer:
        domain = {"domain": self.domain} if "error" not in outcome else {}
        return Answer({}, msgspec.json.encode({**outcome, "stream": stream.config["name"], **domain}))

    def _one(self, stream: Stream, subject: str, headers: dict[str, str], data: bytes) -> dict[str, Any]:
        if refused := self._unexpected(stream, subject, headers):
            return refused
        id = headers.get("Nats-Msg-Id", "")
        if id:
            now, window = self._uptime(), int(stream.config["duplicate_window"]) / 1e9
            known = stream.ids.get(id)
            if known is not None and now - known[1] < window:
                return {"seq": known[0], "duplicate": True}
            stream.ids = {each: (at, since) for each, (at, since) in stream.ids.items() if now - since < window}
            stream.ids[id] = stream.last + 1, now
        stream.add(subject, headers, data, self._now_ns())
        stream.last_id = id
        return {"seq": stream.last}

    def _unexpected(self, stream: Stream, subject: str, headers: Mapping[str, str]) -> dict[str, Any]:
        expected = headers.get("Nats-Expected-Last-Subject-Sequence")
        if expected is not None:
            last = stream.last_on(subject)
            there = last.sequence if last is not None else 0
            if there != int(expected):
                return {**_error((400, WRONG_SEQUENCE, f"wrong last sequence: {there}")), "seq": 0}
        expected = headers.get("Nats-Expected-Last-Sequence")
        if expected is not None and int(expected) != stream.last:
            return {**_error((400, WRONG_SEQUENCE, f"wrong last sequence: {stream.last}")), "seq": 0}
        expected = headers.get("Nats-Expected-Last-Msg-Id")
        if expected is not None and expected != stream.last_id:
            return {**_error((400, WRONG_ID, f"wrong last msg ID: {stream.last_id}")), "seq": 0}
        return {}

    def _batched(self, stream: Stream, subject: str, headers: dict[str, str], data: bytes) -> Answer:
        id, number = headers["Nats-Batch-Id"], int(headers["Nats-Batch-Sequence"])
        now = self._uptime()
        batch = stream.batches.get(id)
        if batch is not None and now - batch.touched_at > BATCH_IDLE_S_MAX:
            del stream.batches[id]
            batch = None
        if batch is None and number == 1:
            batch = stream.batches[id] = _Batch()
        if batch is None or number != len(batch.messages) + 1:
            stream.batches.pop(id, None)
            return self._acked(stream, {**_error(BATCH_INCOMPLETE), "seq": 0})
        batch.touched_at = now
        batch.messages.append((subject, headers, data))
        if len(batch.messages) > BATCH_MESSAGES_MAX:
            del stream.batches[id]
            return self._acked(stream, {**_error(BATCH_TOO_LARGE), "seq": 0})
        if "Nats-Batch-Commit" not in headers:
            return Answer({}, b"")
        del stream.batches[id]
        if refused := self._unexpected(stream, *batch.messages[0][:2]):
            return self._acked(stream, refused)
        for each in batch.messages:
            stream.add(*each, self._now_ns())
        stream.last_id = ""
        return self._acked(stream, {"seq": stream.last, "batch": id, "count": len(batch.messages)})


def _sequence(stored: Stored) -> int:
    return stored.sequence


def _json(kind: str, body: dict[str, Any]) -> Answer:
    return Answer({}, msgspec.json.encode({"type": f"io.nats.jetstream.api.v1.{kind}_response", **body}))


def _error(error: tuple[int, int, str]) -> dict[str, Any]:
    return {"error": {"code": error[0], "err_code": error[1], "description": error[2]}}


def _stamp(at_ns: int) -> str:
    seconds, rest = divmod(at_ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest:09d}Z"


@lru_cache(maxsize=256)
def _second(unix: int) -> str:
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%dT%H:%M:%S}"


def _purge(stream: Stream | None, asked: dict[str, Any]) -> dict[str, Any]:
    if stream is None:
        return _error(STREAM_NOT_FOUND)
    before = len(stream.messages)
    stream.messages = [
        each
        for each in stream.messages
        if each.sequence >= asked.get("seq", 1 << 62) or not matches(asked.get("filter", ">"), each.subject)
    ]
    return {"success": True, "purged": before - len(stream.messages)}


def _leaders_message(stream: Stream | None, asked: dict[str, Any]) -> dict[str, Any]:
    if stream is None:
        return _error(STREAM_NOT_FOUND)
    found: Stored | None
    if "last_by_subj" in asked:
        found = stream.last_on(asked["last_by_subj"])
    else:
        found = next(iter(_from(stream, asked["seq"], asked.get("next_by_subj", ">"), 1)), None)
    if found is None:
        return _error(NO_MESSAGE)
    message: dict[str, Any] = {"subject": found.subject, "seq": found.sequence, "time": _stamp(found.at_ns)}
    if found.headers:
        raw = "NATS/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in found.headers.items()) + "\r\n"
        message["hdrs"] = base64.b64encode(raw.encode()).decode()
    if found.data:
        message["data"] = base64.b64encode(found.data).decode()
    return {"message": message}


def _from(stream: Stream, sequence: int, pattern: str, count: int) -> list[Stored]:
    found: list[Stored] = []
    for each in stream.messages[stream.index(sequence) :]:
        if matches(pattern, each.subject):
            found.append(each)
            if len(found) == count:
                break
    return found


def _direct(name: str, stream: Stream, asked: dict[str, Any]) -> list[Answer]:
    """NATS ADR-31."""
    if "multi_last" in asked:
        last = {
            each.subject: each for each in stream.messages if any(matches(p, each.subject) for p in asked["multi_last"])
        }
        found = sorted(last.values())
        return _told(name, found, len(found), {"Nats-UpTo-Sequence": str(stream.last)}, "No Results")
    pattern = asked.get("next_by_subj", ">")
    if "start_time" in asked:
        since = next((each.sequence for each in stream.messages if _stamp(each.at_ns) >= asked["start_time"]), 1 << 62)
        asked = {**asked, "seq": since}
    matching = _from(stream, asked["seq"], pattern, 1 << 30)
    if "batch" not in asked:
        return (
            [Answer(_described(name, matching[0]), matching[0].data)] if matching else [_nothing("Message Not Found")]
        )
    found, size = [], 0
    for each in matching[: asked["batch"]]:
        found.append(each)
        size += len(each.data) + len(each.subject)
        if size >= asked.get("max_bytes", 1 << 60):
            break
    return _told(name, found, len(matching), {}, "Message Not Found")


def _told(name: str, found: Sequence[Stored], matching: int, more: Mapping[str, str], nothing: str) -> list[Answer]:
    if not found:
        return [_nothing(nothing)]
    answers, before = [], 0
    for count, each in enumerate(found, 1):
        numbers = {"Nats-Num-Pending": str(matching - count), "Nats-Last-Sequence": str(before)}
        answers.append(Answer({**_described(name, each), **numbers}, each.data))
        before = each.sequence
    end = {"Status": "204", "Description": "EOB", "Nats-Num-Pending": str(matching - len(found))}
    return [*answers, Answer({**end, "Nats-Last-Sequence": str(before), **more}, b"")]


def _described(name: str, each: Stored) -> dict[str, str]:
    where = {"Nats-Stream": name, "Nats-Subject": each.subject, "Nats-Sequence": str(each.sequence)}
    return {**each.headers, **where, "Nats-Time-Stamp": _stamp(each.at_ns)}


def _nothing(why: str) -> Answer:
    return Answer({"Status": "404", "Description": why}, b"")
