"""Every conversation of this folder: whole, byte by byte and ragged, on a site in memory; and on the real one."""

from pathlib import Path

import pytest

from tests.live import Live
from tests.memory_site import MemorySite
from tests.transcripts.play import WAYS, Player, Stage

FILES = sorted(Path(__file__).parent.glob("*.txt"))


def memory_stage() -> Stage:
    site = MemorySite()

    async def person(name: str) -> tuple[str, str]:
        address = f"{name}@example.org"
        await site.account(address, "secret")
        return address, "secret"

    return Stage(site, person)


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_conversation(path: Path, how: str) -> None:
    await Player(memory_stage(), how).play(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_conversation_with_the_real_site(path: Path, live_site: Live) -> None:
    async def person(name: str) -> tuple[str, str]:
        made = await live_site.person(name, password="secret")
        return made.address, made.password

    await Player(Stage(live_site.site, person), "whole").play(path)


def test_every_word_has_a_conversation() -> None:
    from protocols.imap.commands import COMMANDS

    said = "\n".join(line[3:].upper() for path in FILES for line in path.read_text().splitlines() if line[1:2] == ">")
    missing = [word for word in (*COMMANDS, "APPEND") if f" {word}" not in said]
    assert not missing
