"""Names of mailboxes and keywords: their one spelling, what is no name, and the mailboxes that every account has.

A mailbox name is a str with "/" between levels. Two names are the same if `canonical` gives the same for both.
"""

import unicodedata

from cluster.domain.refusal import Reason, Refusal

SEPARATOR = "/"
INBOX = "INBOX"
EXPUNGED = "Expunged"  # beneath it, what was expunged can be seen and restored
NAME_BYTES_MAX = 1000  # in UTF-8
DEPTH_LEVELS_MAX = 20
KEYWORDS_PER_MESSAGE_MAX = 64
KEYWORD_BYTES_MAX = 128

# RFC 2342 §5: beneath these are mailboxes of others, as a client names them. Nobody's own ones begin so; where some did
# before there were others, they keep their names and are found first.
OTHERS, SHARED = "Other Users", "Shared"
NAMESPACES = (OTHERS, SHARED)

# RFC 6154 §2: those that a mailbox can be made for. \All and \Flagged are virtual (RFC 6154 §3: the server may refuse).
ARCHIVE, DRAFTS, JUNK, SENT, TRASH = "\\Archive", "\\Drafts", "\\Junk", "\\Sent", "\\Trash"
SPECIAL_USES = (ARCHIVE, DRAFTS, JUNK, SENT, TRASH)

# What a new account has, in this order: (name, special use). All are subscribed.
STANDARD: tuple[tuple[str, str], ...] = (
    (INBOX, ""),
    ("Sent", SENT),
    ("Drafts", DRAFTS),
    ("Trash", TRASH),
    ("Junk", JUNK),
    ("Archive", ARCHIVE),
)

# Of what was filed for its sender: the sender's own copy takes its place when it comes.
FILED = "$filed"

# Registered (RFC 5788) and of widespread clients: keywords that people read in this spelling. All others are kept in lower case.
SPELLINGS = {
    keyword.lower(): keyword
    for keyword in (
        "$Forwarded", "$MDNSent", "$SubmitPending", "$Submitted", "$Junk", "$NotJunk", "$Phishing", "$Important",
        "$MailFlagBit0", "$MailFlagBit1", "$MailFlagBit2", "Junk", "NonJunk", "NotJunk", "JunkRecorded", "Forwarded",
        "Redirected",
    )
}  # fmt: skip


def canonical(name: str) -> str:
    """RFC 9051 §5.1: INBOX is the same in any case; so is it as the first level of a longer name."""
    first, separator, rest = name.partition(SEPARATOR)
    # Only ASCII: a dotless i in upper case is an I, and yet not the same name.
    return INBOX + separator + rest if first.isascii() and first.upper() == INBOX else name


def wanted(name: str) -> str:
    """The canonical name that CREATE and RENAME ask for."""
    # RFC 9051 §6.3.4: a trailing separator only announces children to come.
    return canonical(name.removesuffix(SEPARATOR) if name != SEPARATOR else name)


def invalid(name: str) -> Refusal | None:
    """MAILBOX_NAME_INVALID and why, or None for what may be the name of a new mailbox. `name` is canonical."""
    why = _fault(name)
    return Refusal(Reason.MAILBOX_NAME_INVALID, why, (name,)) if why else None


def is_elsewhere(name: str) -> bool:
    """Whether it can be the name of somebody else's mailbox, or of what is above such."""
    return name.partition(SEPARATOR)[0] in NAMESPACES


def elsewhere(name: str) -> Refusal | None:
    """MAILBOX_NAME_INVALID for what nobody's own mailbox may be called; also the names that only differ in case."""
    if is_expunged(name):
        why = f'"{EXPUNGED}" is the place of what was expunged: nothing else can be there.'
        return Refusal(Reason.MAILBOX_NAME_INVALID, why, (name,))
    if name.partition(SEPARATOR)[0].casefold() not in {one.casefold() for one in NAMESPACES}:
        return None
    return Refusal(Reason.MAILBOX_NAME_INVALID, "Names like this are those of other people's mailboxes.", (name,))


def is_expunged(name: str) -> bool:
    """Whether it is a name beneath which only what was expunged is found."""
    return name == EXPUNGED or is_beneath(name, EXPUNGED)


def _fault(name: str) -> str:
    if not name:
        return "A mailbox name cannot be empty."
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "A mailbox name must be Unicode text."
    if size > NAME_BYTES_MAX:
        return f"A mailbox name is at most {NAME_BYTES_MAX} bytes long."
    # RFC 9051 §5.1: no control characters, no line or paragraph separators.
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        return "A mailbox name cannot contain control characters."
    if name.startswith("\ufeff"):
        return "A mailbox name cannot begin with a mark of byte order."  # RFC 9755 §3, RFC 5198 §2
    # RFC 9051 §5.1: "%" and "*" are wildcards of LIST, so such a mailbox could not be listed by its name.
    if "%" in name or "*" in name:
        return 'A mailbox name cannot contain "%" or "*".'
    levels = name.split(SEPARATOR)
    if not all(levels):
        return 'A level of a mailbox name cannot be empty: "/" stands between two levels only.'
    if len(levels) > DEPTH_LEVELS_MAX:
        return f"A mailbox name has at most {DEPTH_LEVELS_MAX} levels."
    return ""


def levels(name: str) -> int:
    """How many ids a command that makes this mailbox brings along."""
    return wanted(name).count(SEPARATOR) + 1


def superiors(name: str) -> tuple[str, ...]:
    """Every level above, the highest first: a/b/c → (a, a/b)."""
    parts = name.split(SEPARATOR)
    return tuple(SEPARATOR.join(parts[:depth]) for depth in range(1, len(parts)))


def is_beneath(name: str, superior: str) -> bool:
    return name.startswith(superior + SEPARATOR)


def special_use(attribute: str) -> str | None:
    """The attribute in its one spelling ("" stays ""), or None for one that no mailbox can be made for."""
    if not attribute:
        return ""
    return next((known for known in SPECIAL_USES if known.lower() == attribute.lower()), None)


# RFC 9051 §9: flag-keyword is an atom: printable ASCII without these.
_NOT_IN_ATOM = frozenset('(){ %*"\\]')


def keywords(given: tuple[str, ...]) -> tuple[str, ...] | Refusal:
    """In their one spelling (they are the same in any case), each once, sorted. Refuses NOT_PERMITTED, OVER_LIMIT."""
    for keyword in given:
        if not keyword or not all("!" <= character <= "~" and character not in _NOT_IN_ATOM for character in keyword):
            return Refusal(Reason.NOT_PERMITTED, "A keyword is made of letters, digits and simple signs.", (keyword,))
        if len(keyword) > KEYWORD_BYTES_MAX:
            return Refusal(Reason.OVER_LIMIT, f"A keyword is at most {KEYWORD_BYTES_MAX} bytes long.", (keyword,))
    unique = {SPELLINGS.get(keyword.lower(), keyword.lower()) for keyword in given}
    if len(unique) > KEYWORDS_PER_MESSAGE_MAX:
        return Refusal(Reason.OVER_LIMIT, f"A message has at most {KEYWORDS_PER_MESSAGE_MAX} keywords.")
    return tuple(sorted(unique))
