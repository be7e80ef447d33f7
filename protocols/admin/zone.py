"""What an administrator pastes into a domain's zone, so that other servers and mail programs find the sites. Pure.

Sites in their order: the first is tried first, the next one where it does not answer.
"""

from collections.abc import Iterable, Sequence

from cluster.offers import Offer
from protocols.admin.model import Dns, DnsRecord

TTL_S = 3600
PRIORITY_STEP = 10
SMTP_PORT, HTTP_PORT, HTTPS_PORT = 25, 80, 443

# RFC 6186 §3 and RFC 8314 §5.1, implicit TLS first (RFC 8314 §3): what is not offered is said, too.
SERVICES: tuple[tuple[str, str], ...] = (
    ("_imaps._tcp", "imaps"),
    ("_submissions._tcp", "submissions"),
    ("_imap._tcp", "imap"),
    ("_submission._tcp", "submission"),
    ("_pop3s._tcp", "pop3s"),
    ("_pop3._tcp", "pop3"),
)
AUTODISCOVER = "_autodiscover._tcp"  # asked by Outlook; the target speaks HTTPS


def published(domain: str, offers: Sequence[Offer]) -> Dns:
    """`domain` in A-labels."""
    named = [offer for offer in offers if offer.named]
    mail = _once(_mail(domain, named))
    programs = _once(record for service, language in SERVICES for record in _service(domain, service, language, named))
    own_pages = _once([*_service(domain, AUTODISCOVER, "https", named), *_aliases(domain, named)])
    notes = tuple(_notes(domain, offers))
    hosts = [host for host in dict.fromkeys(offer.hostname for offer in named)]
    sections = [
        [f"; Mail of {domain}. Paste this into its zone.", *(f"; NOTE: {note}" for note in notes)],
        ["; Each of these needs an address, where it has none yet:", *(f"; {host}. IN A (or AAAA) ..." for host in hosts)],
        ["; Other servers bring mail here, the lowest number first (RFC 5321 section 5.1):", *_lines(mail)],
        ['; Mail programs find their server (RFC 6186, RFC 8314 section 5.1); "." is not offered:', *_lines(programs)],
        ["; Thunderbird and Outlook ask these how to set an account up:", *_lines(own_pages)],
    ]
    zone = "\n\n".join("\n".join(section) for section in sections) + "\n"
    return Dns(domain, (*mail, *programs, *own_pages), notes, zone)


def _mail(domain: str, named: Sequence[Offer]) -> Iterable[DnsRecord]:
    for number, offer in enumerate(named, 1):
        if offer.port("smtp"):
            yield DnsRecord(f"{domain}.", TTL_S, "MX", f"{number * PRIORITY_STEP} {offer.hostname}.")


def _service(domain: str, service: str, language: str, named: Sequence[Offer]) -> list[DnsRecord]:
    # RFC 2782: weight 0 where there is nothing to choose between equals.
    found = [
        f"{number * PRIORITY_STEP} 0 {offer.port(language)} {offer.hostname}."
        for number, offer in enumerate(named, 1)
        if offer.port(language)
    ]
    # RFC 6186 §3.4: the target "." says that the service is not there at all.
    return [DnsRecord(f"{service}.{domain}.", TTL_S, "SRV", data) for data in found or ["0 0 0 ."]]


def _aliases(domain: str, named: Sequence[Offer]) -> Iterable[DnsRecord]:
    """A name has one CNAME (RFC 1034 §3.6.2), so these lead to the first site that speaks HTTP."""
    first = next((offer for offer in named if offer.port("http") or offer.port("https")), None)
    for name in ("autoconfig", "autodiscover"):
        if first is not None and first.hostname != f"{name}.{domain}":
            yield DnsRecord(f"{name}.{domain}.", TTL_S, "CNAME", f"{first.hostname}.")


def _notes(domain: str, offers: Sequence[Offer]) -> Iterable[str]:
    seen: dict[str, str] = {}
    for offer in offers:
        if not offer.named:
            yield (
                f"site {offer.site} is left out: no record can point to {offer.hostname!r}; write hostname = "
                '"its name" into its [[backbone.member]]'
            )
            continue
        if offer.hostname in seen:
            yield (
                f"sites {seen[offer.hostname]} and {offer.site} have one name, {offer.hostname}: with a name each "
                "(site.hostname, backbone.member.hostname) programs go on at the second when the first is lost"
            )
        seen.setdefault(offer.hostname, offer.site)
        port = offer.port("smtp")
        if port not in (0, SMTP_PORT):
            yield f"other servers know port {SMTP_PORT} only: lead it to {port} at {offer.hostname}"
    yield from _own_pages_notes(domain, [offer for offer in offers if offer.named])
    if not any(offer.named and offer.port("smtp") for offer in offers):
        yield "no site takes mail by SMTP, so that there is no MX"


def _own_pages_notes(domain: str, named: Sequence[Offer]) -> Iterable[str]:
    first = next((offer for offer in named if offer.port("http") or offer.port("https")), None)
    if first is None:
        yield "no site speaks HTTP or HTTPS: programs that ask how to be set up are not answered"
        return
    led = [
        f"{standard} to {first.port(language)}"
        for language, standard in (("http", HTTP_PORT), ("https", HTTPS_PORT))
        if first.port(language) not in (0, standard)
    ]
    if led:
        yield f"mail programs ask autoconfig.{domain} at the standard ports: lead {', '.join(led)} at {first.hostname}"


def _once(records: Iterable[DnsRecord]) -> tuple[DnsRecord, ...]:
    """Sites of one name and one port are one line: the first."""
    kept: dict[tuple[str, str, str], DnsRecord] = {}
    for record in records:
        priority, _, rest = record.data.partition(" ")
        kept.setdefault((record.name, record.type, rest or priority), record)
    return tuple(kept.values())


def _lines(records: Sequence[DnsRecord]) -> list[str]:
    width = max((len(record.name) for record in records), default=0)
    return [f"{record.name:<{width}} {record.ttl} IN {record.type:<5} {record.data}" for record in records]
