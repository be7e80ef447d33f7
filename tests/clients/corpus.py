"""Real messages: those that Python's own test suite carries (files, and texts inside its tests), and those of tests/corpus."""

import ast
import re
import sysconfig
from pathlib import Path
from typing import NamedTuple

OURS = Path(__file__).parents[1] / "corpus"
LIBRARY = Path(sysconfig.get_path("stdlib"))
PYTHONS = LIBRARY / "test" / "test_email"
TEXTS_IN = (*sorted(PYTHONS.glob("test_*.py")), LIBRARY / "test" / "test_mailbox.py", LIBRARY / "test" / "test_smtplib.py")
LINE_BYTES_MAX = 998  # RFC 5321 §4.5.3.1.6, without its CRLF
HEADER = re.compile(rb"\A(From [^\n]*\n)?[A-Za-z][A-Za-z0-9-]{0,60}: ?[^\n]*\n")


class Real(NamedTuple):
    name: str
    data: bytes

    @property
    def mailable(self) -> bool:
        """SMTP can carry it as it is: lines that end with CRLF, none too long, no NUL (RFC 5321 §2.3.8, §4.5.3.1.6)."""
        lines = self.data.split(b"\r\n")
        clean = not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", self.data)
        return clean and lines[-1] == b"" and len(lines) > 1 and max(map(len, lines)) <= LINE_BYTES_MAX


def corpus() -> list[Real]:
    """Every message as it lies there, and once more with the line ends of the wire."""
    files = sorted(path for path in (*OURS.rglob("*.eml"), *(PYTHONS / "data").glob("msg_*.txt")))
    found = [Real(path.name, path.read_bytes()) for path in files]
    found += [text for path in TEXTS_IN if path.exists() for text in _texts(path)]
    wire = [Real(f"{name} with CRLF", re.sub(rb"\r\n|\r|\n", b"\r\n", data)) for name, data in found]
    seen: dict[bytes, Real] = {}
    for message in (*found, *wire):
        if message.data:  # RFC 9051 §6.3.12: an APPEND of nothing is no APPEND
            seen.setdefault(message.data, message)
    return list(seen.values())


def _texts(path: Path) -> list[Real]:
    """String constants of a Python source that begin with a header field and hold an empty line."""
    found = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str | bytes):
            continue
        data = node.value if isinstance(node.value, bytes) else node.value.encode("utf-8", "surrogateescape")
        data = data.removeprefix(b"\n")
        if HEADER.match(data) and (b"\n\n" in data or b"\r\n\r\n" in data):
            found.append(Real(f"{path.name}:{node.lineno}", data))
    return found
