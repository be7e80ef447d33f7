"""Questions to the directory, answered from rows that this process keeps until the directory changes."""

from collections.abc import Callable
from typing import TypeVar

from cluster import partitions
from cluster.domain.directory.resolve import Resolution, resolve
from cluster.domain.directory.state import Missing, Slice
from cluster.domain.quota import Quota
from storage.news import Hub
from storage.postgres.directory_view import DirectoryView, Place

NAMES_KEPT_MAX = 100_000  # addresses and domains, also of whom there is nobody; then all is looked up anew
ADDRESSES_KEPT_MAX = 20_000
ACCOUNTS_KEPT_MAX = 100_000
LOOK_UPS_MAX = 50  # rounds; the domain's own bounds on nesting end a question sooner

T = TypeVar("T")


class Directory:
    def __init__(self, view: DirectoryView, hub: Hub) -> None:
        self.view = view
        self._known = Slice()
        self._places: dict[int, Place] = {}
        self._resolved: dict[str, Resolution] = {}
        hub.on_change(partitions.DIRECTORY, self._forget)

    async def ask(self, question: Callable[[Slice], T | Missing]) -> T:
        """Looks up what the question says is missing until it is answered. Raises AWAY's."""
        known = kept = self._known
        for _ in range(LOOK_UPS_MAX):
            answer = question(known)
            if not isinstance(answer, Missing):
                return answer
            known = await self.view.look_up(answer, known)
            # Kept only where the directory did not change since the first of these rows was read.
            if self._known is kept:
                small = len(known.entries) + len(known.domains) <= NAMES_KEPT_MAX
                self._known = kept = known if small else Slice()
        raise RuntimeError("a question to the directory never had enough")

    async def resolve(self, address: str) -> Resolution:
        """Where mail for an address goes (cluster.domain.directory.resolve)."""
        found = self._resolved.get(address)
        if found is None:
            kept = self._resolved
            found = await self.ask(lambda known: resolve(known, address))
            # As for rows: only where the directory did not change meanwhile.
            if self._resolved is kept and len(kept) < ADDRESSES_KEPT_MAX:
                kept[address] = found
        return found

    async def partition_of(self, account: int) -> str | None:
        """Where the account's mail is kept; None = no such account."""
        place = await self._place(account)
        return None if place is None else place.partition

    async def quota_of(self, account: int) -> Quota | None:
        """None where nothing is limited."""
        place = await self._place(account)
        return place.quota if place is not None and place.quota else None

    async def _place(self, account: int) -> Place | None:
        place = self._places.get(account)
        if place is None:
            kept = self._places
            place = await self.view.place_of(account)
            if place is not None and self._places is kept and len(kept) < ACCOUNTS_KEPT_MAX:
                kept[account] = place
        return place

    def _forget(self) -> None:
        self._known = Slice()
        self._places = {}
        self._resolved = {}
