"""What this language asks of its site: whose mail it takes. Implemented by the floors below."""

from typing import Protocol

from cluster.domain.refusal import Refusal
from storage.overview import Domain

__all__ = ["Domain", "Domains"]


class Domains(Protocol):
    async def domain(self, domain: str) -> Domain | Refusal:
        """In any spelling. NO_SUCH_DOMAIN, UNAVAILABLE."""
        ...
