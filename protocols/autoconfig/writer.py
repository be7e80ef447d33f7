"""Answers → XML, by the standard library, which escapes what it is given."""

import datetime
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from cluster.offers import Offer
from protocols.autoconfig.errors import OutlookError

OUTLOOK_ANSWER = "http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a"
_OUTLOOK_ROOT = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"


class Kind(NamedTuple):
    """One way in. `language`: of Offer.ports. `implicit`: TLS from the first byte."""

    language: str
    thunderbird: str
    outlook: str
    incoming: bool
    implicit: bool


# RFC 8314 §3: implicit TLS is preferred, so all sites' ports with it come before those with STARTTLS.
KINDS = (
    Kind("imaps", "imap", "IMAP", incoming=True, implicit=True),
    Kind("imap", "imap", "IMAP", incoming=True, implicit=False),
    # Behind IMAP: it is the first that programs propose.
    Kind("pop3s", "pop3", "POP3", incoming=True, implicit=True),
    Kind("pop3", "pop3", "POP3", incoming=True, implicit=False),
    Kind("submissions", "smtp", "SMTP", incoming=False, implicit=True),
    Kind("submission", "smtp", "SMTP", incoming=False, implicit=False),
)


def thunderbird(domain: str, offers: Sequence[Offer]) -> bytes:
    """draft-ietf-mailmaint-autoconfig: of several servers the first one is preferred. The program puts the address in
    itself, so that the answer is the same for everybody."""
    root = ElementTree.Element("clientConfig", version="1.1")
    provider = ElementTree.SubElement(root, "emailProvider", id=domain)
    for name, text in (("domain", domain), ("displayName", domain), ("displayShortName", domain)):
        ElementTree.SubElement(provider, name).text = text
    for kind, offer, port in _ways(offers):
        server = ElementTree.SubElement(provider, "incomingServer" if kind.incoming else "outgoingServer", type=kind.thunderbird)
        for name, text in (
            ("hostname", offer.hostname),
            ("port", str(port)),
            ("socketType", "SSL" if kind.implicit else "STARTTLS"),
            ("authentication", "password-cleartext"),  # inside TLS
            ("username", "%EMAILADDRESS%"),
        ):
            ElementTree.SubElement(server, name).text = text
    return _bytes(root)


def outlook(address: str, offers: Sequence[Offer]) -> bytes:
    """[MS-OXDSCLI]: Protocol elements in order of preference. `address` as it was sent: it is the sign-in name."""
    root, response = _outlook_root(OUTLOOK_ANSWER)
    account = ElementTree.SubElement(response, "Account")
    ElementTree.SubElement(account, "AccountType").text = "email"
    ElementTree.SubElement(account, "Action").text = "settings"
    for kind, offer, port in _ways(offers):
        protocol = ElementTree.SubElement(account, "Protocol")
        texts = [
            ("Type", kind.outlook),
            ("Server", offer.hostname),
            ("Port", str(port)),
            ("LoginName", address),
            ("DomainRequired", "off"),
            ("SPA", "off"),
            ("SSL", "on"),
            ("Encryption", "SSL" if kind.implicit else "TLS"),
            ("AuthRequired", "on"),
        ]
        if not kind.incoming:
            texts += [("UsePOPAuth", "on"), ("SMTPLast", "off")]
        for name, text in texts:
            ElementTree.SubElement(protocol, name).text = text
    return _bytes(root)


def outlook_error(code: OutlookError, message: str, now: float) -> bytes:
    """[MS-OXDSCLI]. `now`: unix seconds."""
    root, response = _outlook_root(_OUTLOOK_ROOT)
    time = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%H:%M:%S.%f")
    error = ElementTree.SubElement(response, "Error", Time=time, Id="0")
    ElementTree.SubElement(error, "ErrorCode").text = str(int(code))
    ElementTree.SubElement(error, "Message").text = message
    ElementTree.SubElement(error, "DebugData")
    return _bytes(root)


def refusal(text: str) -> bytes:
    """For Thunderbird, which reads no errors: for people who look."""
    root = ElementTree.Element("error")
    root.text = text
    return _bytes(root)


def _ways(offers: Sequence[Offer]) -> Iterator[tuple[Kind, Offer, int]]:
    for kind in KINDS:
        for offer in offers:
            if port := offer.port(kind.language):
                yield kind, offer, port


def _outlook_root(namespace: str) -> tuple[ElementTree.Element, ElementTree.Element]:
    root = ElementTree.Element("Autodiscover", xmlns=_OUTLOOK_ROOT)
    return root, ElementTree.SubElement(root, "Response", xmlns=namespace)


def _bytes(root: ElementTree.Element) -> bytes:
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"
