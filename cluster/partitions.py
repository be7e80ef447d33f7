"""The partitions of the log, by name. Names are letters, digits and hyphens: they are part of stream names."""

from collections.abc import Mapping
from typing import NamedTuple

DIRECTORY = "directory"


def mail(site: str, number: int = 1) -> str:
    """Where accounts of a site keep their mail; an account's record says which."""
    return f"mail-{site}-{number}"


def queue(site: str) -> str:
    """The site's outbox."""
    return f"queue-{site}"


def is_queue(partition: str) -> bool:
    return partition.startswith("queue-")


def spool(site: str) -> str:
    """What the site takes in while its queue takes nothing: pinned to it, copied nowhere, empty most of the time."""
    return f"spool-{site}"


def is_spool(partition: str) -> bool:
    return partition.startswith("spool-")


def is_mail(partition: str) -> bool:
    return partition != DIRECTORY and not is_queue(partition) and not is_spool(partition)


def of_site(site: str) -> tuple[str, ...]:
    """All that a single site is home of."""
    return (DIRECTORY, mail(site), queue(site))


class Placed(NamedTuple):
    """`homes`: partitions that are at home at a site; `copies`: those that it copies. `home_of`: each with its home, those
    at home here first."""

    homes: tuple[str, ...]
    copies: tuple[str, ...]
    home_of: Mapping[str, str]


def placed(site: str, sites: tuple[str, ...]) -> Placed:
    """Of several sites, in their order: the directory is at home at the first, mail and queue at their own, and every
    other site has copies."""
    homes = {each: of_site(each) if each == sites[0] else of_site(each)[1:] for each in sites}
    copies = {name: each for each in sites if each != site for name in homes[each]}
    return Placed(homes[site], tuple(copies), dict.fromkeys(homes[site], site) | copies)
