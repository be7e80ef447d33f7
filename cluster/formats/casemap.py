"""i;unicode-casemap (RFC 5051): the order in which mail is sorted and threaded, whatever the script and the case."""

import unicodedata


class _Titles(dict[int, str]):
    """Each character's simple title case, looked up once. What grows under title case has no simple one (RFC 5051 §2)."""

    def __missing__(self, code: int) -> str:
        title = chr(code).title()
        found = self[code] = title if len(title) == 1 else chr(code)
        return found


_titles = _Titles()  # at most one entry a character of Unicode


def casemap(text: str) -> str:
    """What two strings that are equal under the collation have in common; compared by code point it gives the order.

    RFC 5051 §2: title case, character by character, and then the full decomposition."""
    if text.isascii():
        return text.upper()
    return unicodedata.normalize("NFKD", text.translate(_titles))
