"""Addresses: their one spelling, and what is none.

`canonical` is for comparing and looking up: local part without case, domain in lower case with A-labels (`xn--…`).
`preserved` is for handing to others: the local part as it was given (RFC 5321 §2.4: its case belongs to its host alone).
Internationalised domains by IDNA 2003, as the standard library has it.
"""

import encodings.idna
import ipaddress
import re
import unicodedata

ADDRESS_BYTES_MAX = 254  # RFC 5321 §4.5.3.1.3: a path is 256 with its angle brackets
LOCAL_PART_BYTES_MAX = 64  # RFC 5321 §4.5.3.1.1
DOMAIN_BYTES_MAX = 253  # RFC 5321 §4.5.3.1.2: 255 in the DNS's own form
LABEL_BYTES_MAX = 63  # RFC 1035 §2.3.4

# RFC 5321 §4.1.2 and RFC 6531 §3.3: atext, with anything beyond ASCII.
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+\Z")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_DOTS = re.compile("[.\u3002\uff0e\uff61]")  # RFC 3490 §3.1
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"\Z', re.DOTALL)


def canonical(address: str) -> str | None:
    """None for what is no address."""
    parts = _parts(address)
    return f"{_quoted_if_needed(_without_case(parts[0]))}@{parts[1]}" if parts else None


def preserved(address: str) -> str | None:
    """Like `canonical`, with the local part's case as it is. None for what is no address."""
    parts = _parts(address)
    return f"{_quoted_if_needed(parts[0])}@{parts[1]}" if parts else None


def canonical_domain(domain: str) -> str | None:
    """None for what is no domain name. A dot at the end is dropped."""
    if not domain or len(domain) > DOMAIN_BYTES_MAX:
        return None
    labels = [_label(label) for label in _DOTS.split(domain[:-1] if _DOTS.match(domain[-1]) else domain)]
    whole = ".".join(label for label in labels if label)
    # All digits at the end would be an IP address (RFC 1123 §2.1).
    if not all(labels) or len(whole) > DOMAIN_BYTES_MAX or whole.rpartition(".")[2].isdigit():
        return None
    return whole


def domain_of(address: str) -> str:
    """Of a canonical address."""
    return address.rpartition("@")[2]


def split_plus(address: str) -> tuple[str, str]:
    """A canonical address without its detail, and the detail: anna+lists@a.org → (anna@a.org, lists). ("…", "") if it
    has none (RFC 5233 §1)."""
    local, _, domain = address.rpartition("@")
    base, _, detail = local.partition("+")
    # In a quoted local part a plus is a sign like any other.
    return (f"{base}@{domain}", detail) if base and not local.startswith('"') else (address, "")


def _parts(address: str) -> tuple[str, str] | None:
    """(local part without quotes, canonical domain)."""
    try:
        size = len(address.encode())
    except UnicodeEncodeError:
        return None
    local, at, domain = address.rpartition("@")
    if not at or size > ADDRESS_BYTES_MAX + 2 * LOCAL_PART_BYTES_MAX:
        return None
    if domain.startswith("["):
        where = _literal(domain)
    else:
        where = canonical_domain(domain)
    name = _unquoted(local)
    if where is None or name is None:
        return None
    for spelling in (name, _without_case(name)):
        shown = _quoted_if_needed(spelling)
        if len(shown.encode()) > LOCAL_PART_BYTES_MAX or len(f"{shown}@{where}".encode()) > ADDRESS_BYTES_MAX:
            return None
    return name, where


def _unquoted(local: str) -> str | None:
    if _is_dot_atom(local):
        return local
    # RFC 5321 §4.1.2: a quoted string means the same as what stands in it.
    if not _QUOTED.match(local):
        return None
    inside = re.sub(r"\\(.)", r"\1", local[1:-1], flags=re.DOTALL)
    return inside if inside and not any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in inside) else None


def _is_dot_atom(local: str) -> bool:
    if not all(_ATOM.match(atom) for atom in local.split(".")):
        return False
    return local.isascii() or not any(unicodedata.category(sign) in ("Cc", "Zl", "Zp", "Zs") for sign in local)


def _quoted_if_needed(local: str) -> str:
    if _is_dot_atom(local):
        return local
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _without_case(local: str) -> str:
    """Canonical caseless matching (Unicode §3.13 D145), composed again. Folding may need more than one round."""
    if local.isascii():
        return local.lower()
    while (folded := unicodedata.normalize("NFC", unicodedata.normalize("NFD", local).casefold())) != local:
        local = folded
    return local


def _label(label: str) -> str | None:
    if label.isascii():
        ascii_label = label.lower()
    else:
        try:
            ascii_label = encodings.idna.ToASCII(label).decode("ascii").lower()
        except UnicodeError:
            return None
    return ascii_label if len(ascii_label) <= LABEL_BYTES_MAX and _LABEL.match(ascii_label) else None


def _literal(domain: str) -> str | None:
    """RFC 5321 §4.1.3: [192.0.2.1] and [IPv6:2001:db8::1]."""
    if not domain.endswith("]"):
        return None
    inside = domain[1:-1]
    try:
        if inside[:5].lower() == "ipv6:":
            return f"[ipv6:{ipaddress.IPv6Address(inside[5:]).compressed}]" if "%" not in inside else None
        return f"[{ipaddress.IPv4Address(inside)}]"
    except ValueError:
        return None
