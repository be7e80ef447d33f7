"""From bytes to text: charsets, encoded words (RFC 2047) and transfer encodings (RFC 2045 §6). Nothing here raises."""

from __future__ import annotations

import binascii
import codecs
import re
from functools import lru_cache

_CHARSETS = {  # names met in mail that Python lacks, or reads too narrowly
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "ks_c_5601-1987": "cp949",
    "euc-kr": "cp949",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "iso-8859-8-i": "iso-8859-8",
    "iso-8859-8-e": "iso-8859-8",
    "unicode-1-1-utf-7": "utf-7",
    "cp-850": "cp850",
    "x-mac-roman": "mac_roman",
    "macintosh": "mac_roman",
    "x-sjis": "cp932",
    "shift_jis": "cp932",
    "windows-31j": "cp932",
}
_NOT_CHARSETS = frozenset({"unicode-escape", "raw-unicode-escape", "idna", "punycode", "undefined", "mbcs", "oem"})
_CHARSET_NAME = re.compile(r"[a-z0-9][a-z0-9_.:+-]*")
_SURROGATE = re.compile("[\ud800-\udfff]")  # UTF-7 lets them pass, UTF-8 cannot write them
_WORD = re.compile(rb"=\?([^?\s*]{1,40})(?:\*[^?\s]{0,40})?\?([bBqQ])\?([^?]*)\?=")
_Q_HEX = re.compile(rb"=([0-9A-Fa-f]{2})")
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))


@lru_cache(maxsize=256)
def _codec(charset: str) -> str | None:
    name = charset.strip().strip("\"'").lower()
    if not _CHARSET_NAME.fullmatch(name):
        return None
    try:
        info = codecs.lookup(_CHARSETS.get(name, name))
    except (LookupError, ValueError, UnicodeError):
        return None
    if info.name.replace("_", "-") in _NOT_CHARSETS or not getattr(info, "_is_text_encoding", True):
        return None  # Python's own escapes are no charsets, and rot13 or zlib even less
    return info.name


def decode_charset(data: bytes, charset: str | None) -> str:
    """Decode text in a named charset. What has none, an unknown one or ASCII is read as UTF-8, else as Windows-1252."""
    codec = _codec(charset[:64]) if charset else "ascii"
    if codec is None or codec == "ascii":
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            text = data.decode("cp1252", "replace")
    else:
        try:
            text = data.decode(codec, "replace")
        except (UnicodeError, ValueError, LookupError):  # some multi-byte codecs raise in spite of "replace"
            text = data.decode("latin-1")
        if codec == "utf-7":
            text = _SURROGATE.sub("", text)
    return text.replace("\0", "")  # no table holds it


def decode_words(value: bytes) -> str:
    """Text of an unfolded header with its encoded words decoded (RFC 2047 §6.2); what is malformed stays as it is."""
    if b"=?" not in value:
        return decode_charset(value, None)
    out: list[str] = []
    run: list[bytes] = []  # neighbours in one charset: agents split characters between words, against RFC 2047 §5
    run_charset, at = "", 0
    for word in _WORD.finditer(value):
        gap = value[at : word.start()]
        charset = word[1].decode("ascii", "replace").lower()
        joined = bool(run) and not gap.strip()  # RFC 2047 §6.2: white space between encoded words is not shown
        if not joined or charset != run_charset:
            if run:
                out.append(decode_charset(b"".join(run), run_charset))
            if not joined:
                out.append(decode_charset(gap, None))
            run, run_charset = [], charset
        run.append(_decode_word(word[2], word[3]))
        at = word.end()
    if run:
        out.append(decode_charset(b"".join(run), run_charset))
    out.append(decode_charset(value[at:], None))
    return "".join(out)


def _decode_word(letter: bytes, text: bytes) -> bytes:
    if letter in b"bB":
        return decode_base64(text)
    return _Q_HEX.sub(lambda found: bytes((int(found[1], 16),)), text.replace(b"_", b" "))  # RFC 2047 §4.2


def decode_base64(data: bytes) -> bytes:
    """RFC 2045 §6.8, leniently: foreign characters are skipped, missing padding made up, a lone last digit dropped."""
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:
        clean = data.translate(None, _NOT_BASE64)
        if len(clean) % 4 == 1:
            clean = clean[:-1]
        return binascii.a2b_base64(clean + b"=" * (-len(clean) % 4))


def _decode_quoted_printable(data: bytes) -> bytes:
    if any(blank in data for blank in (b" \n", b" \r", b"\t\n", b"\t\r")):
        # RFC 2045 §6.7 (3): white space at the end of a line was added on the way
        lines = data.split(b"\n")
        data = b"\n".join(
            line[:-1].rstrip(b" \t") + b"\r" if line.endswith(b"\r") else line.rstrip(b" \t") for line in lines
        )
    return binascii.a2b_qp(data)


def decode_part(body: bytes, encoding: str) -> bytes | None:
    """Undo a Content-Transfer-Encoding, for BINARY (RFC 3516) and for text. `None` if it is unknown (UNKNOWN-CTE)."""
    match encoding.strip().lower():
        case "" | "7bit" | "8bit" | "binary":
            return body
        case "base64":
            return decode_base64(body)
        case "quoted-printable":
            return _decode_quoted_printable(body)
    return None
