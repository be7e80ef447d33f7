"""Reply → bytes (RFC 5321 §4.2.1, RFC 2034 §3)."""

from protocols.smtp.model import Reply

TEXT_CHARS_MAX = 400  # RFC 5321 §4.5.3.1.5: a reply line has at most 512 octets
CHALLENGE_CHARS_MAX = 12_000  # RFC 4954 §4: but one of SASL may have 12,288


def written(reply: Reply) -> bytes:
    """CR, LF and other controls in a text become blanks, so that no text can forge a line."""
    code, enhanced, lines = reply
    lead = f"{enhanced} " if enhanced else ""
    last = len(lines) - 1
    return b"".join(
        f"{code}{' ' if number == last else '-'}{lead}{_plain(text, code)}\r\n".encode("utf-8", "replace")
        for number, text in enumerate(lines)
    )


def _plain(text: str, code: int) -> str:
    limit = CHALLENGE_CHARS_MAX if code == 334 else TEXT_CHARS_MAX
    if text.isprintable() and len(text) <= limit:
        return text
    return "".join(char if char.isprintable() else " " for char in text[:limit])
