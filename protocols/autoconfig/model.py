"""The nouns: what is asked, what is answered, and whom the answer comes from."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from cluster.domain.directory import addresses
from cluster.domain.refusal import Reason, Refusal
from cluster.offers import Offer
from protocols.autoconfig.port import Domain, Domains

REQUEST_BYTES_MAX = 16 * 1024  # Outlook's have about 400
ADDRESS_CHARS_MAX = 320
DEPTH_MAX = 8  # of elements in each other; the schema has three


class SyntaxRefused(Exception):
    """These bytes are not this language; the text says why."""


class OutlookRequest(NamedTuple):
    """`schema`: of the answer that is wanted."""

    address: str
    schema: str


class Answer(NamedTuple):
    """XML."""

    status: HTTPStatus
    body: bytes


class Door(NamedTuple):
    """What a command is given. `offers`: of all sites, the preferred one's first; `home`: of this one."""

    domains: Domains
    offers: Sequence[Offer]
    home: Offer
    now: float

    async def domain(self, name: str) -> Domain | Refusal:
        """What is no domain name at all is not asked for."""
        canonical = addresses.canonical_domain(name)
        if canonical is None:
            return Refusal(Reason.NO_SUCH_DOMAIN, "There is no such domain here.", (name,))
        return await self.domains.domain(canonical)
