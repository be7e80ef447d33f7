"""Base subjects for sorting and threading (RFC 5256 §2.1)."""

from __future__ import annotations

import re

SUBJECT_CHARS_MAX = 1_000  # of which a base is made

_TRAILER = re.compile(r"(?:\(fwd\)|\s)\Z", re.IGNORECASE)
_LEADER = re.compile(r"(?:\[[^\[\]]*\]\s*)*(?:re|fwd?)\s*(?:\[[^\[\]]*\]\s*)?:", re.IGNORECASE)
_BLOB = re.compile(r"\[[^\[\]]*\]\s*")


def base_subject(subject: str) -> str:
    """The base of a decoded subject."""
    return read_subject(subject)[0]


def read_subject(subject: str) -> tuple[str, bool]:
    """(base, whether it is a reply or a forward by RFC 5256 §3) of a decoded subject. The steps are numbered as in §2.1."""
    text = " ".join(subject[:SUBJECT_CHARS_MAX].split())  # (1)
    answers = False
    while True:
        while found := _TRAILER.search(text):  # (2)
            text = text[: found.start()]
            answers = answers or not found[0].isspace()
        while True:
            before = text
            text = text.lstrip()
            while leader := _LEADER.match(text):  # (3)
                text = text[leader.end() :].lstrip()
                answers = True
            blob = _BLOB.match(text)
            if blob and blob.end() < len(text):  # (4): only if something is left
                text = text[blob.end() :]
            if text == before:  # (5)
                break
        if not (text[:5].lower() == "[fwd:" and text.endswith("]")):  # (6)
            return text, answers
        text = text[5:-1]
        answers = True
