"""Every conversation of this folder: whole, byte by byte and ragged, on a site in memory; and on the real one."""

from pathlib import Path

import pytest

from protocols.pop3.commands import COMMANDS
from tests.live import Live
from tests.memory_site import MemorySite
from tests.transcripts.play import WAYS, Stage
from tests.transcripts.pop3.play import PopPlayer

FILES = sorted(Path(__file__).parent.glob("*.txt"))
TOKENS = sorted(Path(__file__).parent.glob("tokens/*.txt"))


def memory_stage() -> Stage:
    site = MemorySite()

    async def person(name: str) -> tuple[str, str]:
        address = f"{name}@example.org"
        await site.account(address, "secret")
        return address, "secret"

    return Stage(site, person)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("path", FILES + TOKENS, ids=lambda path: path.stem)
async def test_conversation(path: Path, how: str) -> None:
    await PopPlayer(memory_stage(), how).play(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_conversation_with_the_real_site(path: Path, live_site: Live) -> None:
    async def person(name: str) -> tuple[str, str]:
        made = await live_site.person(name, password="secret")
        return made.address, made.password

    await PopPlayer(Stage(live_site.site, person), "whole").play(path)


def test_every_word_has_a_conversation() -> None:
    said = {
        line[3:].partition(" ")[0].upper() for path in FILES for line in path.read_text().splitlines() if line[1:2] == ">"
    }
    assert not set(COMMANDS) - said
