"""Domains: whose mail the site takes."""

from msgspec import UNSET

from cluster.domain.directory import commands as directory
from cluster.domain.refusal import Refusal
from protocols.admin.commands.paging import page
from protocols.admin.door import Answer, Call, Door
from protocols.admin.model import DomainChange, DomainPaging, Domains, NewDomain
from protocols.admin.port import Domain
from protocols.admin.zone import published


async def show_all(door: Door, call: Call) -> Answer:
    asked: DomainPaging = call.query
    found = await door.administration.domains(after=asked.after, limit=asked.limit + 1)
    return found if isinstance(found, Refusal) else Domains(*page(found, asked.limit, _key))


async def add(door: Door, call: Call) -> Answer:
    new: NewDomain = call.body
    done = await door.site.execute(call.actor, directory.AddDomain(new.domain, new.catch_all, new.plus))
    return done if isinstance(done, Refusal) else await door.administration.domain(new.domain)


async def show(door: Door, call: Call) -> Answer:
    return await door.administration.domain(call.path["domain"])


async def dns(door: Door, call: Call) -> Answer:
    found = await door.administration.domain(call.path["domain"])
    return found if isinstance(found, Refusal) else published(found.domain, door.offers())


async def change(door: Door, call: Call) -> Answer:
    wanted: DomainChange = call.body
    command = directory.ChangeDomain(
        call.path["domain"],
        catch_all=None if wanted.catch_all is UNSET else wanted.catch_all,
        plus=None if wanted.plus is UNSET else wanted.plus,
        quota_storage=None if wanted.quota_storage_bytes is UNSET else wanted.quota_storage_bytes,
        quota_messages=None if wanted.quota_messages is UNSET else wanted.quota_messages,
        quota_soft=None if wanted.quota_soft_percent is UNSET else wanted.quota_soft_percent,
        undelete_days=None if wanted.undelete_days is UNSET else wanted.undelete_days,
    )
    done = await door.site.execute(call.actor, command)
    return done if isinstance(done, Refusal) else await door.administration.domain(command.domain)


async def remove(door: Door, call: Call) -> Answer:
    done = await door.site.execute(call.actor, directory.RemoveDomain(call.path["domain"]))
    return done if isinstance(done, Refusal) else None


def _key(domain: Domain) -> str:
    return domain.domain
