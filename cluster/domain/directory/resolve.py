"""Where mail for an address goes.

Sans I/O: answers `Missing` until the slice has all that is needed, one round of look-ups a level of nesting; the usual
address needs one round.
"""

import msgspec

from cluster.domain.directory import addresses
from cluster.domain.directory.state import Account, Alias, Domain, Entry, Group, Missing, Slice

DEPTH_LEVELS_MAX = 20  # of aliases and groups within each other
EXPANSION_ADDRESSES_MAX = 20_000  # twice the members that one group may have

# RFC 5321 §4.5.1 and RFC 2142 §2, §4: these of every local domain reach a person.
RESERVED = frozenset({"postmaster", "abuse"})


class Resolution(msgspec.Struct, frozen=True):
    """`accounts`, each once, and addresses `elsewhere`, in the order met. `local_domain`: the domain is ours. `known`: it
    leads somewhere. `complete`: False if it grew beyond DEPTH_LEVELS_MAX or EXPANSION_ADDRESSES_MAX (then not to be used)."""

    accounts: tuple[int, ...] = ()
    elsewhere: tuple[str, ...] = ()
    local_domain: bool = False
    complete: bool = True

    @property
    def known(self) -> bool:
        return bool(self.accounts or self.elsewhere)


def first_needs(address: str) -> Missing:
    """What nearly every resolution of this address needs: worth one query."""
    canonical = addresses.canonical(address)
    if canonical is None:
        return Missing()
    base, _ = addresses.split_plus(canonical)
    domain = addresses.domain_of(canonical)
    postmasters = frozenset({domain}) if is_reserved(base) else frozenset()
    return Missing(frozenset({canonical, base}), frozenset({domain}), postmasters=postmasters)


def is_reserved(address: str) -> bool:
    return address.rpartition("@")[0] in RESERVED


def resolve(known: Slice, address: str) -> Resolution | Missing:
    """Exact address, else without its +detail where the domain allows it, else postmaster@ and abuse@ to the
    domain's postmasters, else the domain's catch-all. Aliases and groups are followed through each other, each once."""
    canonical = addresses.canonical(address)
    if canonical is None:
        return Resolution()
    expansion = expand(known, (address,))
    if isinstance(expansion, Missing):
        return expansion
    accounts, elsewhere = expansion.accounts, expansion.elsewhere
    local = known.domains.get(addresses.domain_of(canonical)) is not None
    if local and not accounts and not elsewhere and is_reserved(addresses.split_plus(canonical)[0]):
        # What was set for it leads nowhere (any more).
        domain = addresses.domain_of(canonical)
        if domain not in known.postmasters:
            return Missing(postmasters=frozenset({domain}))
        accounts = known.postmasters[domain]
    return Resolution(accounts, elsewhere, local, expansion.complete)


class Expansion(msgspec.Struct, frozen=True):
    """`visited`: every canonical address that was met, aliases and groups included."""

    accounts: tuple[int, ...]
    elsewhere: tuple[str, ...]
    visited: frozenset[str]
    complete: bool


def expand(known: Slice, start: tuple[str, ...]) -> Expansion | Missing:
    accounts: dict[int, None] = {}
    elsewhere: dict[str, None] = {}
    visited: set[str] = set()
    missing: list[Missing] = []
    level, depth = start, 0
    while level and depth <= DEPTH_LEVELS_MAX and len(visited) + len(level) <= EXPANSION_ADDRESSES_MAX:
        following: list[str] = []
        for address in level:
            canonical = addresses.canonical(address)
            if canonical is None or canonical in visited:
                continue
            visited.add(canonical)
            found = find(known, canonical)
            match found:
                case Missing():
                    missing.append(found)
                case Elsewhere():
                    elsewhere[addresses.preserved(address) or canonical] = None
                case Account():
                    accounts[found.id] = None
                case Alias():
                    visited.add(found.address)
                    following.extend(found.targets)
                case Group():
                    visited.add(found.address)
                    following.extend(found.members)
                case Somebody():
                    accounts.update(dict.fromkeys(found.accounts))
                    following.extend(found.addresses)
        level, depth = tuple(following), depth + 1
    if missing:
        return _all(missing)
    return Expansion(tuple(accounts), tuple(elsewhere), frozenset(visited), complete=not level)


class Elsewhere(msgspec.Struct, frozen=True):
    """The domain is not ours."""


class Somebody(msgspec.Struct, frozen=True):
    """Who takes what is addressed to nobody; may be empty."""

    accounts: tuple[int, ...] = ()
    addresses: tuple[str, ...] = ()


def find(known: Slice, address: str) -> Entry | Elsewhere | Somebody | Missing:
    """One step: what a canonical address means here."""
    name = addresses.domain_of(address)
    if name in known.domains and known.domains[name] is None:
        return Elsewhere()
    needed = known.without_known(first_needs(address))
    if needed.addresses or needed.domains:
        return needed
    domain = known.domains[name] or Domain(name)
    entry = known.entries[address]
    if entry is not None:
        return entry
    base = addresses.split_plus(address)[0] if domain.plus else address
    if base != address and (entry := known.entries[base]) is not None:
        return entry
    if is_reserved(base):
        return needed or Somebody(known.postmasters[name])
    return Somebody(addresses=(domain.catch_all,) if domain.catch_all else ())


def may_send_as(known: Slice, account: int, own: str, address: str) -> bool | Missing:
    """`own`: the account's canonical address. Permitted: itself, an alias that leads to it, a group it is in directly,
    each with a +detail too. A catch-all gives nobody the right to speak for all."""
    canonical = addresses.canonical(address)
    if canonical is None:
        return False
    match find(known, canonical):
        case Missing() as missing:
            return missing
        case Account() as found:
            return found.id == account
        case Group() as found:
            return any(addresses.canonical(member) == own for member in found.members)
        case Alias() as found:
            expansion = expand(known, (found.address,))
            return expansion if isinstance(expansion, Missing) else account in expansion.accounts
        case _:
            return False


def _all(missing: list[Missing]) -> Missing:
    return Missing(
        frozenset().union(*(one.addresses for one in missing)),
        frozenset().union(*(one.domains for one in missing)),
        frozenset().union(*(one.members for one in missing)),
        frozenset().union(*(one.postmasters for one in missing)),
    )
