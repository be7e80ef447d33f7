"""What a site without any domain gets at its first start: the domain of its configuration, and a demo site its people."""

import structlog

from cluster import partitions
from cluster.domain.actor import Actor
from cluster.domain.directory.commands import AddAccount, AddDomain
from cluster.domain.refusal import Reason, Refusal
from node.assembly import Assembly
from node.config import load_demo

log = structlog.get_logger("first-start")


class FirstStartFailed(Exception):
    """The text says what was refused."""


async def first_start(parts: Assembly) -> None:
    """Several workers may try at once: one wins; one that died on the way is taken over at the next start. Raises
    FirstStartFailed."""
    config = parts.config
    if partitions.DIRECTORY not in parts.placed.homes:
        return
    actor = Actor(name="first start", administrator=True, site=config.site, node=parts.name)
    if await parts.directory_view.is_empty():
        answer = await parts.site.execute(actor, AddDomain(config.domain))
        if isinstance(answer, Refusal) and answer.reason is not Reason.DOMAIN_EXISTS:
            raise FirstStartFailed(f"domain {config.domain}: {answer.text}")
        log.info("domain added", domain=config.domain)
    people = load_demo(config.demo_file)
    there = await parts.directory_view.addresses("account", None, "", len(people) + 1)
    # The first of them comes last: while only others are there, a first start did not come to its end.
    if not {person.address for person in people[1:]}.issuperset(there):
        return
    for person in reversed(people):
        command = AddAccount(
            person.address,
            parts.world.new_id(),
            partitions.mail(config.site),
            person.name,
            await parts.credentials.make(person.password),
            administrator=person is people[0],
        )
        answer = await parts.site.execute(actor, command)
        if isinstance(answer, Refusal) and answer.reason is not Reason.ADDRESS_TAKEN:
            raise FirstStartFailed(f"account {person.address}: {answer.text}")
