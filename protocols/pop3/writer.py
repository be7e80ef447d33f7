"""Reply → bytes (RFC 1939 §3, RFC 2449 §4 and §8)."""

from collections.abc import Iterable

from protocols.pop3.model import Reply

REPLY_BYTES_MAX = 512  # RFC 2449 §4: the first line of an answer, with its CRLF
END = b".\r\n"


def written(reply: Reply) -> bytes:
    """Controls in a text become blanks, so that no text can forge a line; one that is too long is cut."""
    code = f"[{reply.code}] " if reply.code else ""
    text = "".join(char if char.isprintable() else " " for char in reply.text)
    if not code and text.lstrip().startswith("["):
        text = text.replace("[", "(", 1)  # RFC 2449 §8: in brackets there is a response code, and nothing else
    # RFC 6856 §2: only who asked for UTF8 is to be sent any, and what we say ourselves is ASCII.
    line = f"{'+OK' if reply.ok else '-ERR'} {code}{text}".rstrip().encode("ascii", "replace")
    return line[: REPLY_BYTES_MAX - 2] + b"\r\n"


def challenge(text: str) -> bytes:
    """RFC 5034 §4. `text`: base64."""
    return b"+ " + text.encode("ascii") + b"\r\n"


def lines(texts: Iterable[str]) -> bytes:
    """Lines of an answer of several, which begin with no dot."""
    return "".join([f"{text}\r\n" for text in texts]).encode("ascii")
