"""Where a run begins: the kept corpus, the conversations of tests/transcripts, the malformed messages of tests/corpus, and the
words of the grammars. New commands and their transcripts are taken up by themselves."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
TESTS = Path(__file__).parents[1]
CORPUS_BYTES_MAX = 48 * 1024  # of one target, in the repository
ENTRY_BYTES_MAX = 2_000

_NAMED = re.compile(r"<[a-z][a-z0-9_]*>")
_WORD = re.compile(rb"[ (\[]{0,2}[A-Za-z0-9.=+$:;?*\\/~{}&%<>-]{1,30}[ (\[]{0,2}")
_CONVERSATIONS = {"imap": "imap", "imap_session": "imap", "pop3": "pop3", "pop3_session": "pop3", "smtp": "smtp",
                  "smtp_session": "smtp", "smtp_arguments": "smtp"}  # fmt: skip
_GRAMMARS = {"imap": "imap", "pop3": "pop3", "smtp": "smtp", "signing": "", "names": "imap", "autodiscover": "autoconfig"}


def kept(target: str) -> list[bytes]:
    """One input a line, as the inside of a literal of Python."""
    path = FOLDER / f"{target}.txt"
    if not path.exists():
        return []
    return [line.encode("ascii").decode("unicode_escape").encode("latin-1") for line in path.read_text("ascii").splitlines()]


def keep(target: str, inputs: Iterable[bytes]) -> None:
    """The smallest ones, as many as the limits allow."""
    lines: list[str] = []
    size = 0
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        line = data.decode("latin-1").encode("unicode_escape").decode("ascii")
        size += len(line) + 1
        if size > CORPUS_BYTES_MAX or len(data) > ENTRY_BYTES_MAX:
            break
        lines.append(line)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines))


def seeds(target: str, *, apart: bool = True) -> Iterator[bytes]:
    """What is not kept because it stands elsewhere already. `apart`: also each line of a conversation for itself."""
    if target in _CONVERSATIONS:
        for path in sorted((TESTS / "transcripts" / _CONVERSATIONS[target]).rglob("*.txt")):
            lines = list(_said(path))
            if apart:
                yield from lines
            if target != "smtp_arguments":
                yield b"".join(lines)
    if target in ("message", "moving_in", "header_words"):
        for path in sorted((TESTS / "corpus").rglob("*.eml")):
            data = path.read_bytes()
            yield data
            if target == "header_words":
                yield from data.splitlines()


def _said(path: Path) -> Iterator[bytes]:
    """The lines of all clients."""
    for line in path.read_text("utf-8").splitlines():
        if line[1:2] != ">":
            continue
        text = _NAMED.sub("1", line[3:]).replace("\\c", "<+>")
        more = text.endswith("<+>")
        data = re.sub(rb"<0x([0-9a-f]{2})>", lambda found: bytes((int(found[1], 16),)), text.removesuffix("<+>").encode())
        yield data if more else data + b"\r\n"


def words(target: str) -> set[bytes]:
    """Short literals of the modules that read this language, for libFuzzer to put together."""
    folder = _GRAMMARS.get(target.partition("_")[0])
    root = TESTS.parent
    modules = sorted((root / "protocols" / folder).rglob("*.py")) if folder is not None else []
    if not modules:
        modules = sorted((root / "cluster" / "formats").rglob("*.py"))
    found: set[bytes] = set()
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text())):
            value = node.value if isinstance(node, ast.Constant) else None
            data = value.encode(errors="replace") if isinstance(value, str) else value
            if isinstance(data, bytes) and _WORD.fullmatch(data):
                found.add(data)
    return found
