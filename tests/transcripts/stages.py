"""The sites on which conversations are played, and their people."""

from cluster import partitions
from cluster.domain.actor import Actor
from cluster.domain.directory.commands import AddAccount, AddDomain, AddGroup
from cluster.domain.mailbox import names, rights
from cluster.domain.mailbox.commands import OpenAccount, SetRights
from cluster.domain.mailbox.events import FlagMode
from cluster.domain.refusal import Refusal
from protocols.port import Site
from tests.live import ACTOR, Live
from tests.memory_site import MemorySite
from tests.transcripts.play import ADMINISTRATOR, Stage

DOMAIN = "example.org"


def of_memory(*sites: MemorySite) -> Stage:
    """The people are known at all the sites, and their mail is at the last one only."""
    last = sites[-1]

    async def known(name: str, password: str) -> tuple[int, str]:
        address = f"{name}@{DOMAIN}"
        root = name == ADMINISTRATOR
        account = await last.account(address, password, administrator=root)
        for site in sites[:-1]:
            near = await site.account(address, password, administrator=root)
            site.kept_at[near.id] = (last.name,)
        return account.id, address

    async def person(name: str) -> tuple[str, str]:
        _, address = await known(name, "secret")
        return address, "secret"

    async def shared(name: str, with_whom: str) -> str:
        account, address = await known(name, "nobody knows")
        last.shared.add(account)
        await let_in(last, account, with_whom)
        return address

    async def group(name: str, members: tuple[str, ...]) -> str:
        address = f"{name}@{DOMAIN}"
        last.groups[address] = members
        return address

    return Stage(sites[0], person, shared, group)


def of_live(live: Live) -> Stage:
    site = live.site

    async def person(name: str) -> tuple[str, str]:
        made = await live.person(name, password="secret", administrator=name == ADMINISTRATOR)
        return made.address, made.password

    async def shared(name: str, with_whom: str) -> str:
        domain, account = f"{live.world.new_id():x}.example", live.world.new_id()
        address, partition = f"{name}@{domain}", partitions.mail(live.parts.config.site)
        for command in (AddDomain(domain), AddAccount(address, account, partition, name, shared=True)):
            done = await site.execute(ACTOR, command)
            assert not isinstance(done, Refusal), done
        await let_in(site, account, with_whom)
        return address

    async def group(name: str, members: tuple[str, ...]) -> str:
        domain = f"{live.world.new_id():x}.example"
        for command in (AddDomain(domain), AddGroup(f"{name}@{domain}", name, members)):
            done = await site.execute(ACTOR, command)
            assert not isinstance(done, Refusal), done
        return f"{name}@{domain}"

    return Stage(site, person, shared, group)


async def let_in(site: Site, account: int, address: str) -> None:
    """As an administrator does: everything may be done with a shared account's INBOX."""
    system = Actor("system")
    identifier = await site.identifier(address)
    assert not isinstance(identifier, Refusal), identifier
    ids = tuple(site.world.new_id() for _ in names.STANDARD)
    for command in (
        OpenAccount(account, ids),
        SetRights(account, names.INBOX, identifier, FlagMode.REPLACE, rights.ALL),
    ):
        done = await site.execute(system, command)
        assert not isinstance(done, Refusal), done
