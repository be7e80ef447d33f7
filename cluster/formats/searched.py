"""What a search looks at in a message (RFC 9051 §6.4.4), and the words that stand for it in an index.

A message's text is cut at white space; a needle without white space lies within one of the words, so that a list of words
answers it exactly. Scripts that put no blanks between words (Chinese, Japanese, Thai…) are listed by pairs of characters.
Everything here is casefolded, as the comparison is; nothing is normalised: what the list answers is what reading answers.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cluster.formats import mime

SECTIONS = ("from", "to", "cc", "bcc", "subject", "ids", "header", "body")
INDEXED_CHARS_MAX = 256 * 1024  # of one message's section; of what is beyond the index tells nothing
PIECES_MAX = 64  # of a needle that are looked up; they narrow enough

# Scripts written without blanks: Thai and Lao, Tibetan, Myanmar, Khmer, kana, CJK with its marks, Yi, full-width forms, and
# the planes of rare ideographs. Korean has blanks.
_DENSE = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u312f\u3130-\u9fff\ua000-\ua4cf\uf900-\ufaff"
    "\uff00-\uffef\U00020000-\U0003ffff]+"
)


class Searched(NamedTuple):
    """Casefolded texts by section. `whole`: nothing was cut off, so that what is not found is not there."""

    texts: Mapping[str, str]
    whole: bool


class Needle(NamedTuple):
    """How a list of words is asked: each of `pieces` must be in one of the lines `\\nword\\n`. `exact`: who has them surely has
    the needle; otherwise it must be read."""

    pieces: tuple[str, ...]
    exact: bool


def people(found: Iterable[mime.Address]) -> str:
    out = []
    for address in found:
        name = mime.decode_words(address.name) if address.name else ""
        out.append(f"{name} <{mime.addr_spec(address)}>" if address.mailbox else name)
    return ", ".join(out).casefold()


def words_of(value: bytes | None) -> str:
    return mime.decode_words(value).casefold() if value else ""


def searched(data: mime.Buffer, described: mime.Description) -> Searched:
    """`data`: the message; where nothing is looked at it may hold anything."""
    envelope, structure = described.envelope, described.structure
    texts = {
        "from": people(envelope.from_),
        "to": people(envelope.to),
        "cc": people(envelope.cc),
        "bcc": people(envelope.bcc),
        "subject": words_of(envelope.subject),
        "ids": f"{words_of(envelope.message_id)}\n{words_of(envelope.in_reply_to)}",
        "header": mime.header_text(data, structure).casefold(),
        "body": mime.body_text(data, structure).casefold(),
    }
    whole = structure.body_start - structure.header_start <= mime.HEADER_BYTES_MAX
    for section, text in texts.items():
        if len(text) > INDEXED_CHARS_MAX:
            whole = False
            texts[section] = text[:INDEXED_CHARS_MAX]
    return Searched(texts, whole)


def words(text: str) -> set[str]:
    """Its words: whatever a needle's pieces can be found in."""
    found = set(text.split())
    if text.isascii() or _DENSE.search(text) is None:
        return found
    out: set[str] = set()
    for word in found:
        _cut(word, out)
    return out


def _cut(word: str, out: set[str]) -> None:
    at = 0
    for run in _DENSE.finditer(word):
        if run.start() > at:
            out.add(word[at : run.start()])
        dense, at = run[0], run.end()
        out.update(map("".join, zip(dense, dense[1:], strict=False)) if len(dense) > 1 else (dense,))
    if at < len(word):
        out.add(word[at:])


def needle(text: str) -> Needle | None:
    """Of a casefolded text; None where a list of words cannot tell anything."""
    if "\n" in text or "\r" in text:
        return None  # lines are joined differently from key to key
    pieces: list[str] = []
    tokens = text.split()
    for number, token in enumerate(tokens):
        begins = number > 0 or text[0].isspace()  # something stands before it that ends a word
        ends = number < len(tokens) - 1 or text[-1].isspace()
        at = 0
        for run in _DENSE.finditer(token):
            if run.start() > at:
                pieces.append(_line(token[at : run.start()], begins or at > 0, True))
            dense, at = run[0], run.end()
            pieces += [dense[i : i + 2] for i in range(len(dense) - 1)] if len(dense) > 1 else [dense]
        if at < len(token):
            pieces.append(_line(token[at:], begins or at > 0, ends))
    if not pieces:
        return None
    return Needle(tuple(dict.fromkeys(pieces))[:PIECES_MAX], exact=len(pieces) == 1 and pieces[0] == text)


def _line(piece: str, begins: bool, ends: bool) -> str:
    return ("\n" if begins else "") + piece + ("\n" if ends else "")
