"""What clients seldom do and may: pipelines of hundreds, readers that do not read, odd spellings of names, long lines."""

import asyncio
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import pytest

from tests.clients.place import CLIENT_S_MAX, Person, Place

CONNECTIONS = 10
PIPELINED = 300
MANY = 5_000
MESSAGE_BYTES = 4_000
ANSWER_S_MAX = 1.0  # for somebody else while a slow reader holds 20 MB that it does not take
LINE_BYTES_MAX = 8_192  # RFC 7162 §4: that long a line may be sent


class Wire:
    """An IMAP connection on which bytes are sent as a test wants them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)

    async def until(self, tag: str) -> list[bytes]:
        """The lines up to the tagged one, which must be there within CLIENT_S_MAX."""
        lines: list[bytes] = []
        async with asyncio.timeout(CLIENT_S_MAX):
            while not (lines and lines[-1].startswith(f"{tag} ".encode())):
                lines.append(await self.reader.readline())
                assert lines[-1], f"closed before {tag}: {lines[-5:]}"
        return lines

    async def ask(self, tag: str, words: bytes | str) -> list[bytes]:
        self.send(f"{tag} ".encode() + (words.encode() if isinstance(words, str) else words) + b"\r\n")
        return await self.until(tag)


@asynccontextmanager
async def signed_in(place: Place, person: Person, limit: int = 1 << 16) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(
        "localhost", place.config.ports.imaps, ssl=place.trust(), limit=limit
    )
    wire = Wire(reader, writer)
    try:
        await reader.readline()
        lines = await wire.ask("in", f'LOGIN {person.address} "{person.password}"')
        assert lines[-1].startswith(b"in OK")
        yield wire
    finally:
        writer.transport.abort()


async def test_ten_connections_pipeline_hundreds_of_commands(place: Place, person: Person) -> None:
    place.append(person, [b"Subject: %d\r\n\r\nx\r\n" % n for n in range(20)])

    async def talk(which: int) -> None:
        async with signed_in(place, person) as wire:
            words = ["NOOP", "UID SEARCH ALL", "FETCH 1:5 (UID FLAGS)", "STATUS Archive (MESSAGES)", f"STORE {which + 1} +FLAGS (k{which})"]
            sent = [f"t{n} {words[n % len(words)]}\r\n" for n in range(PIPELINED)]
            wire.send("s SELECT INBOX\r\n" + "".join(sent) + "z LOGOUT\r\n")
            lines = await wire.until("z")
            tagged = [line.split(b" ")[:2] for line in lines if not line.startswith(b"*")]
            assert [tag for tag, _ in tagged] == [b"s", *(b"t%d" % n for n in range(PIPELINED)), b"z"]
            assert {state for _, state in tagged} == {b"OK"}

    async with asyncio.TaskGroup() as group:
        for which in range(CONNECTIONS):
            group.create_task(talk(which))
    with place.imap(person) as client:
        words = [set(flags) for flags in client.get_flags(list(range(1, CONNECTIONS + 1))).values()]
        assert [f"k{n}".encode() in flags for n, flags in enumerate(words)] == [True] * CONNECTIONS


@pytest.mark.long
async def test_a_slow_reader_holds_nobody_up(place: Place, person: Person) -> None:
    """Somebody asks for 5,000 messages (20 MB) and reads nothing; another is answered meanwhile; then all of it comes."""
    line = b"x" * 70 + b"\r\n"
    place.append(person, [b"Subject: %d\r\n\r\n" % n + line * (MESSAGE_BYTES // len(line)) for n in range(MANY)])
    other = place.person()
    async with signed_in(place, person) as slow, signed_in(place, other) as quick:
        await slow.ask("s", "SELECT INBOX")
        await quick.ask("s", "SELECT INBOX")
        slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
        slow.send("f FETCH 1:* (UID BODY.PEEK[])\r\n")
        took = []
        for n in range(200):
            start = perf_counter()
            await quick.ask(f"n{n}", "NOOP" if n % 2 else "STATUS INBOX (MESSAGES)")
            took.append(perf_counter() - start)
        print(f"answered meanwhile: p50 {statistics.median(took) * 1000:.1f} ms, worst {max(took) * 1000:.1f} ms")
        assert max(took) < ANSWER_S_MAX
        slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
        messages = sum(line.endswith(b"}\r\n") and b" FETCH (" in line for line in await slow.until("f"))
        assert messages == MANY


@pytest.mark.parametrize(
    ("spelling", "shown", "shown_utf8"),
    [
        (b'"Entw&APw-rfe"', b'"Entw&APw-rfe"', "Entwürfe".encode()),
        (b'"~peter/mail/&U,BTFw-/&ZeVnLIqe-"', b'"~peter/mail/&U,BTFw-/&ZeVnLIqe-"', "~peter/mail/台北/日本語".encode()),
        (b'"a \\"quoted\\" \\\\ name"', b'"a \\"quoted\\" \\\\ name"', b'a \\"quoted\\" \\\\ name'),
        (b"{9+}\r\nliteral 1", b'"literal 1"', b"literal 1"),
        (b'"Tom &- Jerry"', b'"Tom &- Jerry"', b"Tom & Jerry"),
        (b"inbox/child", b'"INBOX/child"', b"INBOX/child"),
    ],
)
async def test_names_in_every_spelling(
    place: Place, person: Person, spelling: bytes, shown: bytes, shown_utf8: bytes
) -> None:
    """Modified UTF-7 to the old (RFC 3501 §5.1.3), UTF-8 to whoever enabled revision 2 (RFC 9051 §5.1)."""
    async with signed_in(place, person) as old, signed_in(place, person) as new:
        await new.ask("e", "ENABLE IMAP4rev2")
        assert (await old.ask("c", b"CREATE " + spelling))[-1].startswith(b"c OK")
        listed = await old.ask("l", 'LIST "" *')
        assert any(unquoted(line) == shown.strip(b'"') for line in listed), listed
        listed = await new.ask("l", 'LIST "" *')
        assert any(unquoted(line) == shown_utf8 for line in listed), listed
        assert (await new.ask("s", b'SELECT "' + shown_utf8 + b'"'))[-1].startswith(b"s OK")


def unquoted(line: bytes) -> bytes:
    """The name that an untagged LIST shows, as it is written between its quotes."""
    name = line.rstrip(b"\r\n").partition(b'"/" ')[2]
    return name.removeprefix(b'"').removesuffix(b'"')


async def test_literals_anywhere_a_string_may_be(place: Place, person: Person) -> None:
    reader, writer = await asyncio.open_connection("localhost", place.config.ports.imaps, ssl=place.trust())
    wire = Wire(reader, writer)
    await reader.readline()
    name, password = person.address.encode(), person.password.encode()
    wire.send(b"a LOGIN {%d}\r\n" % len(name))
    assert (await reader.readline()).startswith(b"+")  # RFC 9051 §4.3: the server invites
    wire.send(name + b" {%d+}\r\n" % len(password) + password + b"\r\n")  # RFC 7888: and need not
    assert (await wire.until("a"))[-1].startswith(b"a OK")
    for n, words in enumerate(
        (
            b"CREATE {4+}\r\nWork", b"APPEND {4+}\r\nWork (\\Seen) {19+}\r\nSubject: w\r\n\r\nbody\r\n", b"SELECT {4+}\r\nWork",
            b"SEARCH SUBJECT {1+}\r\nw BODY {4+}\r\nbody", b"SEARCH CHARSET {5+}\r\nUTF-8 TEXT {2+}\r\n\xc3\xbc",
            b'LIST {0+}\r\n {1+}\r\n%', b"FETCH 1 BODY.PEEK[HEADER.FIELDS ({7+}\r\nSubject)]", b"STATUS {7+}\r\narchive (MESSAGES)",
        )
    ):  # fmt: skip
        lines = await wire.ask(f"w{n}", words)
        state = lines[-1].split(b" ")[1]
        assert state == (b"NO" if b"archive" in words else b"OK"), lines  # only INBOX has no case
    writer.close()


async def test_long_lines(place: Place, person: Person) -> None:
    place.append(person, [b"Subject: %d\r\n\r\nx\r\n" % n for n in range(30)])
    async with signed_in(place, person) as wire:
        await wire.ask("s", "SELECT INBOX")
        every = ",".join(str(1 + n % 30) for n in range(LINE_BYTES_MAX))[: LINE_BYTES_MAX - 100].rpartition(",")[0]
        lines = await wire.ask("f", f"UID FETCH {every} (FLAGS)")
        assert sum(b" FETCH " in line for line in lines) == 30 and lines[-1].startswith(b"f OK")
        for alternatives, state in ((10, b"o OK"), (10_000, b"o BAD [LIMIT]")):
            words = "SEARCH " + "OR ANSWERED " * (alternatives - 1) + "ALL"
            assert (await wire.ask("o", words[: LINE_BYTES_MAX - 4]))[-1].startswith(state)
        assert (await wire.ask("t", "SEARCH SUBJECT " + "y" * (1 << 20)))[-1].startswith(b"t BAD")
        assert (await wire.ask("n", "NOOP"))[-1].startswith(b"n OK")


async def test_one_byte_at_a_time(place: Place, person: Person) -> None:
    message = b"Subject: slow\r\n\r\nby the byte\r\n"
    async with signed_in(place, person) as wire:
        for byte in b"a APPEND INBOX {%d+}\r\n" % len(message) + message + b"\r\nb STATUS INBOX (MESSAGES)\r\n":
            wire.send(bytes((byte,)))
            await wire.writer.drain()
        assert (await wire.until("a"))[-1].startswith(b"a OK [APPENDUID")
        assert b"* STATUS INBOX (MESSAGES 1)\r\n" in [line.replace(b'"', b"") for line in await wire.until("b")]
