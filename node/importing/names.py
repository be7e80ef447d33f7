"""From the source's folder to a mailbox of ours: its name, made possible where it is not, and keywords likewise."""

import unicodedata
from collections.abc import Mapping

from cluster.domain.mailbox import names

REPLACED = "_"


def mailbox_name(levels: tuple[str, ...], wanted: Mapping[str, str] | None = None) -> str:
    """`wanted`: what the operator says it shall be called, by the source's name with "/" between levels. Signs that no name
    may have (RFC 9051 §5.1), and a "/" within a level, become "_"; empty levels fall away; levels too deep are joined by
    "_". What is longer than a name may be stays too long: the site refuses it and the operator renames it."""
    plain = names.SEPARATOR.join(levels)
    if wanted and plain in wanted:
        return names.canonical(wanted[plain])
    clean = [_level(level) for level in levels if level] or [REPLACED]
    if len(clean) > names.DEPTH_LEVELS_MAX:
        keep = names.DEPTH_LEVELS_MAX - 1
        clean = [*clean[:keep], REPLACED.join(clean[keep:])]
    return names.canonical(names.SEPARATOR.join(clean))


def _level(level: str) -> str:
    return "".join(REPLACED if _impossible(sign) else sign for sign in level)


def _impossible(sign: str) -> bool:
    return sign in "%*/" or unicodedata.category(sign) in ("Cc", "Zl", "Zp", "Cs")


def keywords(given: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those that can be kept in their one spelling, and those that cannot (no atom, too long, too many)."""
    kept: dict[str, None] = {}
    dropped: list[str] = []
    for keyword in dict.fromkeys(given):
        found = names.keywords((keyword,))
        if isinstance(found, tuple) and (found[0] in kept or len(kept) < names.KEYWORDS_PER_MESSAGE_MAX):
            kept[found[0]] = None
        else:
            dropped.append(keyword)
    return tuple(sorted(kept)), tuple(dropped)
