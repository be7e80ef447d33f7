"""Steps of the two clients: they issue commands, hear the answer, and keep a cache by token (RFC 7162 §3.2.5)."""

from tests.sim.model import fold, rules
from tests.sim.model.checks import check_client_synced, check_own_write, check_unchangedsince
from tests.sim.model.fold import Event, Kind
from tests.sim.model.home import admit
from tests.sim.model.site import Client, Site, World

COMMANDS_MAX = 40


def roam(world: World, a: int, b: int) -> None:
    """The client connects to another site."""
    client = world.clients[a % 2]
    client.site, client.session = b % 3, None


def issue(world: World, a: int, b: int) -> None:
    client = world.clients[a % 2]
    if client.pending or world.commands >= COMMANDS_MAX or world.settling:
        return
    world.commands += 1
    command, kind = world.commands, (Kind.APPENDED, Kind.APPENDED, Kind.FLAGGED, Kind.EXPUNGED)[b % 4]
    if kind is Kind.APPENDED or not client.cache:
        client.pending = Event(Kind.APPENDED, command, value=command)
        return
    uid = sorted(client.cache)[b // 4 % len(client.cache)]
    tables = world.sites[client.site].tables
    if not world.sites[client.site].up or tables.validity != client.validity or uid not in tables.messages:
        return  # RFC 9051 §6.4.9: a UID that is not there is passed over; there is nothing to do.
    client.pending = Event(kind, command, uid, client.validity, command, read_at=tables.position)
    world.truth.meant[command] = (kind, client.cache[uid][0])


def submit(world: World, a: int, b: int) -> None:
    """Sends the command to the home, or sends it again under the same id."""
    client = world.clients[a % 2]
    site = world.sites[client.site]
    home = world.home_of(site) if site.up else None
    if client.pending is None or home is None or client.answer:
        return
    if admit(world, home, client.pending) < 0:
        client.pending = None


def hear_answer(world: World, a: int, b: int) -> None:
    """`execute` returns when the site's tables have the write."""
    client = world.clients[a % 2]
    site = world.sites[client.site]
    if not (client.pending and client.answer and site.up) or site.tables.position < client.answer:
        return
    if rules.in_history(site.record, client.answer) or not world.rules.own_write_must_be_in_history:
        check_own_write(world, client, site.tables)
        client.pending, client.answer = None, 0
    elif client.pending.command in site.tables.applied:
        client.pending, client.answer = None, 0
    else:
        client.answer = 0  # The word was given in an epoch that lost it: ask again, under the same id.


def sync(world: World, a: int, b: int) -> None:
    """SELECT … (QRESYNC …), or the first one. The site answers only if its tables have reached the token."""
    client = world.clients[a % 2]
    site = world.sites[client.site]
    tables = site.tables
    if not site.up or (tables.position < client.token and world.rules.wait_for_token):
        return
    since = rules.judged(site.record, client.token, tables.salvaged, world.rules)
    if client.validity != tables.validity:
        client.validity, client.cache, client.top, since = tables.validity, {}, 0, None
    if since is None:
        client.cache = tables.shown()  # All flags, and VANISHED for every other UID that it may know.
    else:
        changed, vanished = fold.changes_since(tables, since)
        client.cache = {uid: seen for uid, seen in {**client.cache, **changed}.items() if uid not in vanished}
    check_client_synced(world, client, tables)
    client.token = tables.highest
    client.top = max(client.top, client.token)
    client.session = _session(site)


def push(world: World, a: int, b: int) -> None:
    """IDLE: the site tells what changed since it told last. A session whose mailbox was rolled back has got BYE."""
    client = world.clients[a % 2]
    site = world.sites[client.site]
    if client.session is None or not site.up:
        return
    if client.session[1] != site.run or client.validity != site.tables.validity:
        client.session = None
        return
    if client.session[2] != site.rolled_back and world.rules.bye_when_rolled_back:
        client.session = None
        return
    changed, vanished = fold.changes_since(site.tables, client.session[3])
    client.cache = {uid: seen for uid, seen in {**client.cache, **changed}.items() if uid not in vanished}
    if client.exact:
        check_client_synced(world, client, site.tables)
        client.token = site.tables.highest
        client.top = max(client.top, client.token)
    client.session = _session(site)


def store_unchanged(world: World, a: int, b: int) -> None:
    """STORE (UNCHANGEDSINCE token): passes only if the message is what the client thinks it is."""
    client = world.clients[0]
    site = world.sites[client.site]
    both = sorted(client.cache.keys() & site.tables.messages.keys())
    if not site.up or not both or client.validity != site.tables.validity or site.tables.position < client.token:
        return
    uid = both[b % len(both)]
    if world.rules.unchangedsince_needs_token and not rules.in_history(site.record, client.token):
        return
    if site.tables.messages[uid].modseq <= client.token:
        check_unchangedsince(world, client, site.tables, uid)


def _session(site: Site) -> tuple[int, int, int, int]:
    return site.name, site.run, site.rolled_back, site.tables.position


def is_done(client: Client) -> bool:
    return client.pending is None
