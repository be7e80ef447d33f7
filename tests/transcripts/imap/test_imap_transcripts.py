"""Every conversation of this folder: whole, byte by byte and ragged, on a site in memory; carried to another one, where the
mail is; and on the real one."""

from pathlib import Path

import msgspec
import pytest

from protocols.imap.server import ImapServer
from tests.carried import FAR, NEAR, Authority, Neighbours, Pair, door_of
from tests.live import Live
from tests.memory_site import MemorySite
from tests.transcripts.play import WAYS, Client, Player
from tests.transcripts.stages import of_live, of_memory

FILES = sorted(Path(__file__).parent.glob("*.txt"))
NOT_CARRIED = ("unauthenticate",)  # not offered there (carried/not_offered.txt)
CARRIED = [path for path in FILES if path.stem not in NOT_CARRIED] + sorted(Path(__file__).parent.glob("carried/*.txt"))

TOKENS = sorted(Path(__file__).parent.glob("tokens/*.txt"))


class Carried(Player):
    """The people of these conversations sign in at a site that has none of their mail."""

    def __init__(self, how: str, near: Pair, far: Pair) -> None:
        self.near_site, self.far_site = MemorySite(), MemorySite()
        self.far_site.name = FAR
        super().__init__(of_memory(self.near_site, self.far_site), how)
        self._way, self._door = near.way, far.door
        self.far: ImapServer | None = None

    async def open(self) -> None:
        if self.far is None:
            members = Neighbours(self._way, {NEAR, FAR})
            self.settings = msgspec.structs.replace(self.settings, sites=members)
            self.far = ImapServer(self.far_site, self.settings)
            members.doors[FAR] = await door_of(self.far, self._door)

    async def client(self, name: str) -> Client:
        await self.open()
        return await super().client(name)

    async def close(self) -> None:
        await super().close()
        if self.far is not None:
            await self.far.close()


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("path", FILES + TOKENS, ids=lambda path: path.stem)
async def test_conversation(path: Path, how: str) -> None:
    await Player(of_memory(MemorySite()), how).play(path)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pair, Pair]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    return authority.pair(NEAR), authority.pair(FAR)


@pytest.mark.parametrize("how", ["whole", "ragged"])
@pytest.mark.parametrize("path", CARRIED, ids=lambda path: path.stem)
async def test_carried_conversation(path: Path, how: str, pairs: tuple[Pair, Pair]) -> None:
    await Carried(how, *pairs).play(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_conversation_with_the_real_site(path: Path, live_site: Live) -> None:
    await Player(of_live(live_site), "whole").play(path)


def test_every_word_has_a_conversation() -> None:
    assert TOKENS, "those of tokens are gone"
    from protocols.imap.commands import COMMANDS

    said = "\n".join(line[3:].upper() for path in FILES for line in path.read_text().splitlines() if line[1:2] == ">")
    missing = [word for word in (*COMMANDS, "APPEND", "REPLACE", "UID REPLACE") if f" {word}" not in said]
    assert not missing
