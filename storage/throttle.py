"""Slows down who guesses passwords: by address (a whole /64 of IPv6, since one customer has it) and by account.

Pure state and a clock that is passed in. A few failures are free; each further one doubles the time in which nothing is
tried at all. What is counted fades when nothing fails any more.
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable

FAILURES_FREE_MAX = 10
WINDOW_S = 300.0
WAIT_FIRST_S = 2.0
WAIT_S_MAX = 900.0
KEYS_MAX = 100_000
FAMILIAR_S_MAX = 30 * 86400.0

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Throttle:
    """Failures by key, at most KEYS_MAX keys (the longest quiet go first)."""

    def __init__(
        self, monotonic: Callable[[], float], free: int = FAILURES_FREE_MAX, window_s: float = WINDOW_S
    ) -> None:
        self._monotonic = monotonic
        self._free = free
        self._window_s = window_s
        self._failures: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()  # how many, and until when to wait

    def wait_s(self, key: Hashable) -> float:
        """Seconds until it may be tried again; 0 = now."""
        count, until = self._state(key)
        return max(0.0, until - self._monotonic()) if count else 0.0

    def failed(self, key: Hashable) -> None:
        count = self._state(key)[0] + 1
        over = count - self._free
        wait = 0.0 if over < 0 else min(WAIT_S_MAX, WAIT_FIRST_S * 2.0 ** min(over, 30))
        self._failures.pop(key, None)
        self._failures[key] = (count, self._monotonic() + wait)
        while len(self._failures) > KEYS_MAX:
            self._failures.popitem(last=False)

    def succeeded(self, key: Hashable) -> None:
        self._failures.pop(key, None)

    def _state(self, key: Hashable) -> tuple[int, float]:
        count, until = self._failures.get(key, (0, 0.0))
        if count and self._monotonic() >= until + self._window_s:
            del self._failures[key]
            return 0, 0.0
        return count, until


class SignIns:
    """The two throttles together. `lifted`: networks that are never slowed down.

    Whoever guesses at an account from elsewhere must not lock its owner out: from a network from which the account has
    signed in before, the account's own count is passed over (the network's is not)."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        lifted: tuple[Network, ...] = (),
        free: int = FAILURES_FREE_MAX,
        window_s: float = WINDOW_S,
    ) -> None:
        self._monotonic = monotonic
        self._lifted = lifted
        self._addresses = Throttle(monotonic, free, window_s)
        self._accounts = Throttle(monotonic, free, window_s)
        self._familiar: OrderedDict[tuple[str, str], float] = OrderedDict()

    def wait_s(self, address: str, account: str) -> float:
        """`address`: of the client, as text. `account`: the name it gives, in canonical form, known here or not."""
        if self._is_lifted(address):
            return 0.0
        of_address = self._addresses.wait_s(network_of(address))
        return of_address if self._knows(address, account) else max(of_address, self._accounts.wait_s(account))

    def failed(self, address: str, account: str) -> None:
        if not self._is_lifted(address):
            self._addresses.failed(network_of(address))
            self._accounts.failed(account)

    def succeeded(self, address: str, account: str) -> None:
        """The account's count ends. The address's does not: its owner may have an account and guess at others."""
        self._accounts.succeeded(account)
        key = (network_of(address), account)
        self._familiar.pop(key, None)
        self._familiar[key] = self._monotonic()
        while len(self._familiar) > KEYS_MAX:
            self._familiar.popitem(last=False)

    def _knows(self, address: str, account: str) -> bool:
        seen = self._familiar.get((network_of(address), account))
        return seen is not None and self._monotonic() - seen < FAMILIAR_S_MAX

    def _is_lifted(self, address: str) -> bool:
        there = _parsed(address)
        return there is not None and any(there in network for network in self._lifted)


def network_of(address: str) -> str:
    """What is counted as one: an IPv4 address, an IPv6 /64 (RFC 6177 §2), any other text as it is."""
    there = _parsed(address)
    if isinstance(there, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((there, 64), strict=False))
    return address if there is None else str(there)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        there = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return there.ipv4_mapped or there if isinstance(there, ipaddress.IPv6Address) else there
