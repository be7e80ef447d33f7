"""What programs send → requests. Any bytes at all raise nothing but SyntaxRefused.

Expat reads the XML: it is in the standard library, well kept, and ends at the first document type, without which there
are no entities to blow up or to reach out with.
"""

from typing import NoReturn
from xml.parsers import expat

from protocols.autoconfig.model import ADDRESS_CHARS_MAX, DEPTH_MAX, REQUEST_BYTES_MAX, OutlookRequest, SyntaxRefused

OUTLOOK_REQUEST = "http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006"
SCHEMA_CHARS_MAX = 200
_ROOT = f"{OUTLOOK_REQUEST} Autodiscover"
_TEXTS_MAX = {f"{OUTLOOK_REQUEST} EMailAddress": ADDRESS_CHARS_MAX, f"{OUTLOOK_REQUEST} AcceptableResponseSchema": SCHEMA_CHARS_MAX}
PREFIXES = ("autoconfig.", "autodiscover.")


def outlook(data: bytes) -> OutlookRequest:
    """[MS-OXDSCLI]: Autodiscover/Request with EMailAddress and AcceptableResponseSchema. Raises SyntaxRefused."""
    if len(data) > REQUEST_BYTES_MAX:
        raise SyntaxRefused(f"a request may have {REQUEST_BYTES_MAX} bytes")
    reading = _Reading()
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _no_document_type
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.text
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise SyntaxRefused(f"not XML: {error}") from None
    address, schema = (reading.found.get(name, "").strip() for name in _TEXTS_MAX)
    if not address or not schema:
        raise SyntaxRefused("EMailAddress and AcceptableResponseSchema are wanted")
    return OutlookRequest(address, schema)


def domain_of(address: str) -> str:
    """Empty for what has none. Whether there is such a person is nobody's business here."""
    return address.strip().rpartition("@")[2] if "@" in address and len(address) <= ADDRESS_CHARS_MAX else ""


def domain_of_host(host: str) -> str:
    """The domain that a program asks about where it gives no address: that of the name it came to (RFC 9110 §7.2),
    without the port and the name that this service has in a zone."""
    name = host.lower() if host.endswith("]") else host.lower().partition(":")[0]
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


class _Reading:
    """The texts of the wanted elements, each the first of its name."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._open: list[str] = []

    def start(self, name: str, _: dict[str, str]) -> None:
        if not self._open and name != _ROOT:
            raise SyntaxRefused("the root must be Autodiscover of outlook/requestschema/2006")
        self._open.append(name)
        if len(self._open) > DEPTH_MAX:
            raise SyntaxRefused("elements lie too deep in each other")
        if name in _TEXTS_MAX:
            if name in self.found:
                raise SyntaxRefused("an element is there twice")
            self.found[name] = ""

    def end(self, _: str) -> None:
        self._open.pop()

    def text(self, piece: str) -> None:
        name = self._open[-1]
        if name in _TEXTS_MAX:
            self.found[name] += piece
            if len(self.found[name]) > _TEXTS_MAX[name]:
                raise SyntaxRefused("a text is too long")


def _no_document_type(*_: object) -> NoReturn:
    raise SyntaxRefused("a document type is not taken")
