"""What must never be seen. These know the whole truth, and nothing of the rules."""

from collections import Counter

from tests.sim.model import rules
from tests.sim.model.fold import Event, Kind, Tables
from tests.sim.model.rules import LEASE_TICKS, MARGIN_TICKS, Record, site_of
from tests.sim.model.site import Client, Lead, Site, World

NEVER_LOST = "I1 acknowledged is never gone"
NOT_ROLLED_BACK = "I1 remote: acknowledged is not rolled back"
NOT_DOUBLED = "I1 nothing is doubled"
ONE_CONTENT = "I2 a UID names one content"
ONE_EVENT = "I2 a position names one event"
TOKENS_RISE = "I3 tokens never fall"
CACHE_IS_TRUE = "I3 no change at or below a token"
ONE_STORY = "I4 all sites tell one story"
ONE_HOME = "I5 one home acknowledges"
OWN_WRITES = "I6 own writes are seen"
REACHABLE_IS_KEPT = "L3 acknowledged and within reach is kept"
HEALTHY_STAYS = "L1 a healthy home stays"
SETTLES = "L2 in the calm all settles"


def check_word(world: World, site: Site, lead: Lead) -> None:
    """When a home gives its word, no other epoch has begun. Forced takeovers and lying clocks are not promised this."""
    if world.setting.lying_clocks or any(epoch > lead.epoch for epoch in world.truth.forced):
        return
    if world.record.epoch != lead.epoch or world.record.home != site.disk:
        world.violated(ONE_HOME, f"site {site.name} in epoch {lead.epoch}, when {world.record.epoch} had begun")


def check_shown(world: World, site: Site, event: Event, position: int) -> None:
    """What a site's tables show at once is what clients may keep for ever."""
    known = world.truth.events.setdefault(position, event)
    if known != event:
        world.violated(ONE_EVENT, f"{position} at site {site.name}: {event}, elsewhere {known}")
    for uid, message in site.tables.messages.items():
        if message.modseq == position:
            named = world.truth.names.setdefault((site.tables.validity, uid), message.content)
            if named != message.content:
                world.violated(ONE_CONTENT, f"UID {uid} at site {site.name}: {message.content}, before {named}")


def check_promotion(world: World, record: Record) -> None:
    """At the moment when `record` is about to become the truth."""
    old_home = world.sites[site_of(world.record.home)]
    is_forced = record.epoch in world.truth.forced
    if not is_forced and not world.setting.lying_clocks and old_home.lead and old_home.disk == world.record.home:
        if world.truth.healthy.get((record.home, world.record.revision), 0) > LEASE_TICKS + MARGIN_TICKS + 2:
            world.violated(HEALTHY_STAYS, f"site {old_home.name} loses its home to {record.home} for nothing")
    if world.setting.remote and record.home in world.record.members:
        for command, position in world.truth.acked.items():
            if rules.in_history(world.record, position) and not rules.in_history(record, position):
                world.violated(NOT_ROLLED_BACK, f"command {command} at {position}, by {record.ended}")


def check_most_advanced(world: World, site: Site, position: int) -> None:
    """When a site stands for home at `position`: no other member within its reach has more of what was acknowledged."""
    for other in world.others(site):
        best = other.position(world.rules)
        if other.disk in site.record.members and other.record.revision == site.record.revision:
            if any(position < acked <= best for acked in world.truth.acked.values()):
                world.violated(
                    REACHABLE_IS_KEPT, f"site {site.name} stands at {position}, site {other.name} has {best}"
                )


def check_client_synced(world: World, client: Client, tables: Tables) -> None:
    if tables.highest < client.top:
        world.violated(TOKENS_RISE, f"client {client.name}: {client.top}, now {tables.highest}")
    if client.exact:
        check_cache(world, client, tables)


def check_cache(world: World, client: Client, tables: Tables) -> None:
    if client.cache != tables.shown():
        world.violated(CACHE_IS_TRUE, f"client {client.name} has {client.cache}, site shows {tables.shown()}")


def check_own_write(world: World, client: Client, tables: Tables) -> None:
    assert client.pending is not None
    if client.pending.command not in tables.applied:
        world.violated(
            OWN_WRITES, f"client {client.name} heard OK of {client.pending}, and site {client.site} has it not"
        )


def check_unchangedsince(world: World, client: Client, tables: Tables, uid: int) -> None:
    """A conditional change went through: then the client knew the message as it is (RFC 7162 §3.1.3)."""
    if client.cache[uid] != tables.shown()[uid]:
        world.violated(CACHE_IS_TRUE, f"client {client.name} changes UID {uid} that it knows as {client.cache[uid]}")


def check_calm(world: World) -> None:
    """All is healed and nothing is under way: one story, with everything in it."""
    told = world.sites[0].tables
    for site in world.sites[1:]:
        if site.tables.told() != told.told():
            world.violated(ONE_STORY, f"site 0 {told.told()}, site {site.name} {site.tables.told()}")
    doubled = [content for content, times in Counter(m.content for m in told.messages.values()).items() if times > 1]
    if doubled:
        world.violated(NOT_DOUBLED, f"contents {doubled}")
    for command in world.truth.acked:
        if command not in told.applied and command not in told.reported and command not in world.truth.destroyed:
            world.violated(NEVER_LOST, f"command {command} acknowledged at {world.truth.acked[command]}")
    _check_effects(world, told)


def _check_effects(world: World, told: Tables) -> None:
    """A change that was acknowledged, and that nobody else contradicted, is to be seen."""
    by_content = {message.content: message for message in told.messages.values()}
    touching = Counter(content for _, content in world.truth.meant.values())
    for command, (kind, content) in world.truth.meant.items():
        excused = command in world.truth.destroyed or command not in world.truth.acked
        if excused or touching[content] > 1 or content not in by_content:
            continue
        if kind is Kind.EXPUNGED or by_content[content].flags != command:
            world.violated(NEVER_LOST, f"command {command} ({kind.value} on {content}) had no effect")
