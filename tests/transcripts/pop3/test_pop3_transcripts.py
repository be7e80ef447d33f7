"""Every conversation of this folder: whole, byte by byte and ragged, on a site in memory; and on the real one."""

from pathlib import Path

import pytest

from protocols.pop3.commands import COMMANDS
from tests.live import Live
from tests.memory_site import MemorySite
from tests.transcripts.play import WAYS
from tests.transcripts.pop3.play import PopPlayer
from tests.transcripts.stages import of_live, of_memory

FILES = sorted(Path(__file__).parent.glob("*.txt"))
TOKENS = sorted(Path(__file__).parent.glob("tokens/*.txt"))


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("path", FILES + TOKENS, ids=lambda path: path.stem)
async def test_conversation(path: Path, how: str) -> None:
    await PopPlayer(of_memory(MemorySite()), how).play(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_conversation_with_the_real_site(path: Path, live_site: Live) -> None:
    await PopPlayer(of_live(live_site), "whole").play(path)


def test_every_word_has_a_conversation() -> None:
    assert TOKENS, "those of tokens are gone"
    said = {
        line[3:].partition(" ")[0].upper() for path in FILES for line in path.read_text().splitlines() if line[1:2] == ">"
    }
    assert not set(COMMANDS) - said
