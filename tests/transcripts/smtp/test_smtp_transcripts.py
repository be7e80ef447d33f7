"""Every conversation of this folder, played whole, byte by byte and ragged."""

from pathlib import Path

import pytest

from tests.transcripts.smtp.play import Player

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("*.txt"))


@pytest.mark.parametrize("how", ["whole", "bytes", "ragged"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_conversation(path: Path, how: str) -> None:
    await Player(how).play(path)


def test_there_are_conversations() -> None:
    assert len(FILES) >= 10
