"""Plays a conversation from a text file against POP3 sessions without a socket: the language of tests/transcripts/play.py, and

    -- message anna TEXT          comes to anna's INBOX; \\r, \\n and \\t as in Python
    -- deleted anna UID           by another program, meanwhile
    -- left anna COUNT            so many messages are in anna's INBOX
    -- login A anna               client A connects and signs in; what it hears is dropped
"""

import ipaddress

import msgspec

from cluster.domain.actor import Actor
from cluster.domain.mailbox.commands import AppendMessage, Expunge, NewMessage
from cluster.domain.refusal import Refusal
from protocols.pop3.server import Pop3Server
from protocols.pop3.settings import Settings
from protocols.port import Site
from tests.transcripts.play import Client, Player, Stage
from tests.transcripts.wire import MemoryTransport

MESSAGE_BYTES_MAX = 1 << 20
ARRIVED_AT = 1_700_000_000


class PopClient(Client):
    def __init__(self, server: Pop3Server, *, tls: bool = False) -> None:
        self.wire = server.door(tls=tls)
        self.transport = MemoryTransport(self.wire)
        self.wire.connection_made(self.transport)


class PopPlayer(Player):
    def __init__(self, stage: Stage, how: str) -> None:
        super().__init__(stage, how)
        self.pop3_settings = Settings(
            hostname="mail.example.org", plaintext_networks=(ipaddress.ip_network("127.0.0.0/8"),)
        )
        self.pop3: Pop3Server | None = None

    async def client(self, name: str) -> Client:
        if name not in self.clients:
            self.pop3 = self.pop3 or Pop3Server(self.stage.site, self.pop3_settings)
            self.clients[name] = PopClient(self.pop3, tls=self.tls)
        return self.clients[name]

    async def close(self) -> None:
        for client in self.clients.values():
            client.transport.close()
        if self.pop3 is not None:
            await self.pop3.close()

    async def direct(self, words: list[str], where: str) -> None:
        match words:
            case ["setting", pair]:
                name, _, value = pair.partition("=")
                assert self.pop3 is None and name in Settings.__struct_fields__, where
                self.pop3_settings = msgspec.structs.replace(self.pop3_settings, **{name: int(value)})
            case ["untrusted"]:
                self.pop3_settings = msgspec.structs.replace(self.pop3_settings, plaintext_networks=())
            case ["login", who, person]:
                client = await self.client(who)
                assert await client.line() is not None
                for line in (f"USER {self.names[person]}", f"PASS {self.passwords[person]}"):
                    await client.send(f"{line}\r\n".encode(), "whole")
                    answer = await client.line()
                    assert answer is not None and answer.startswith("+OK"), answer
            case ["message", person, *text]:
                data = " ".join(text).encode().decode("unicode_escape").encode("latin-1")
                await append(self.stage.site, await self.account(person), data)
            case ["deleted", person, uid]:
                account = await self.account(person)
                command = Expunge(account, await inbox(self.stage.site, account), ((int(uid), int(uid)),), only_deleted=False)
                assert not isinstance(await self.stage.site.execute(Actor("another"), command), Refusal), where
            case ["left", person, count]:
                found = await self.stage.site.select(await self.account(person), "INBOX")
                assert not isinstance(found, Refusal) and len(found.uids) == int(count), f"{where}: {found}"
            case _:
                assert words[0] in ("person", "closed", "tls", "token"), f"{where}: what is this?"
                await super().direct(words, where)

    async def account(self, person: str) -> int:
        found = await self.stage.site.resolve(self.names[person])
        assert not isinstance(found, Refusal)
        return found.accounts[0]


async def inbox(site: Site, account: int) -> int:
    boxes = await site.mailboxes(account)
    assert not isinstance(boxes, Refusal)
    return boxes[0].id


async def append(site: Site, account: int, data: bytes, arrived_at: int = ARRIVED_AT) -> None:
    await inbox(site, account)  # which makes it
    ingest = site.ingest(max(MESSAGE_BYTES_MAX, len(data)))
    assert await ingest.feed(data)
    spooled = await ingest.finish()
    assert not isinstance(spooled, Refusal)
    command = AppendMessage(account, "INBOX", (NewMessage(spooled.content, arrived_at),))
    done = await site.execute(Actor("another"), command, [spooled])
    spooled.release()
    assert not isinstance(done, Refusal), done


