"""What the sites offer to clients, as the configuration knows it."""

from cluster.domain.directory import addresses
from cluster.offers import Offer
from node.config import STANDARD_PORTS, Config, Member


def offers(config: Config) -> tuple[Offer, ...]:
    """One a site, in the order of the configuration: of this site as it is, of the others as their members are written."""
    here = {name: port for name in STANDARD_PORTS if name != "nats" and (port := getattr(config.ports, name))}
    own = Offer(config.site, _spelt(config.hostname), here)
    if config.backbone is None:
        return (own,)
    return tuple(own if member.site == config.site else _of(member) for member in config.backbone.members if member.role == "site")


def _of(member: Member) -> Offer:
    standard = {name: member.port_base + port for name, port in STANDARD_PORTS.items() if name != "nats"}
    there = {name: port for name, port in (standard | member.ports).items() if port and name != "nats"}
    return Offer(member.site, _spelt(member.hostname or member.host), there)


def _spelt(host: str) -> str:
    return addresses.canonical_domain(host) or host
