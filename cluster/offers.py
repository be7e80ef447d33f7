"""Where clients reach the sites: what administrators publish and mail programs are told, the same at every site."""

from collections.abc import Mapping

import msgspec

from cluster.domain.directory import addresses


class Offer(msgspec.Struct, frozen=True):
    """Of one site. `hostname`: what clients connect to, a name or an address. `ports`: by language (imaps, submission …);
    what is not there is not offered."""

    site: str
    hostname: str
    ports: Mapping[str, int]

    @property
    def named(self) -> bool:
        """Whether it is a name: an address can be connected to, and no record can point to it (RFC 2782: the target is a
        domain name; RFC 2181 §10.3)."""
        return addresses.canonical_domain(self.hostname) is not None

    def port(self, language: str) -> int:
        """0 = not offered."""
        return self.ports.get(language, 0)
