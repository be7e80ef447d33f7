"""Random walks over the steps: drawn from a seed, replayed, shrunk. `python -m tests.sim.model.walk SEED [rule…]`
replays a seed with the named rules switched off, and prints the shortest trace found."""

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from tests.sim.model import checks, clients, copies, faults, home, plane, rules
from tests.sim.model.rules import Rules
from tests.sim.model.site import Setting, Violation, World, drawn

Step = tuple[str, int, int]
Action = Callable[[World, int, int], None]

STEPS_MAX = 300
ROUNDS_MAX = 60



def work(world: World, a: int, b: int) -> None:
    """Several ordinary steps in their ordinary order, some left out, so that walks get somewhere."""
    client, site = a % 2, a // 2 % 3
    clients.issue(world, client, a // 4)
    clients.submit(world, client, 0)
    for name in range(3):
        home.write(world, name, 2)
        if b & 1 or name != site:
            home.land(world, name, 0)
    for name in range(3):
        if b & 2 or name != site:
            copies.fetch(world, name, a)
            copies.fetch(world, name, a + 1)
            copies.confirm(world, name, 0)
    for name in range(3):
        if b & 4 or name != site:
            home.say(world, name, 1 + b // 4)
    for name in range(3):
        if b & 8 or name == site:
            copies.hear(world, name, b // 16)
            copies.project(world, name, 3)
    clients.hear_answer(world, client, 0)


def second(world: World, a: int, b: int) -> None:
    """A second of everybody's routine, with `b` without some of it."""
    faults.tick(world, a, b)
    for name in range(3):
        if b & 16 or name != a % 3:
            plane.look(world, name, 0)
        if b & 32:
            copies.stand(world, name, 0)
            copies.start(world, name, 0)
    if b & 64:
        faults.tick(world, a, 1)


def loss(world: World, a: int, b: int) -> None:
    """The home is lost in the middle of work: crashed, cut off from plane or sites, or without its disk."""
    name = rules.site_of(world.record.home)
    client = world.clients[a % 2]
    if b & 1:
        client.site, client.session = name, None
        clients.sync(world, a % 2, 0)
    work(world, a, b | 4)
    copies.project(world, name, 3)
    clients.push(world, a % 2, 0)
    (faults.crash, faults.isolate, faults.slow, faults.wipe)[a // 2 % 4](world, name, b // 2)
    if a & 8:
        for other in range(3):
            faults.drift(world, other, int(other != name))
    for _ in range(b // 4 % 3):
        work(world, a + b, b | 5)
        faults.tick(world, a, 1)
        copies.hear(world, name, 0)
        copies.project(world, name, 3)
        clients.push(world, a % 2, 0)
    for _ in range(rules.LEASE_TICKS + rules.MARGIN_TICKS + 1):
        second(world, 2 - a % 2, 63)
        if a & 16:
            work(world, a // 2 * 8 + name * 2 + a % 2, 255)
    if a & 32:
        for _ in range(len(world.replies)):
            plane.answer(world, 0, 1)
        work(world, a // 2 * 8 + name * 2 + a % 2, 255)
    if b & 128:
        client.site, client.session = (name + 1 + b // 16 % 2) % 3, None
        for uid in range(3):
            clients.store_unchanged(world, 0, uid)
        clients.sync(world, a % 2, 0)
    work(world, a // 2, b | 10)
    if b & 64:
        faults.heal(world, name, 1)
        faults.restart(world, name, 0)


def laggard(world: World, a: int, b: int) -> None:
    """A copy falls behind, is left out, comes back, perhaps as a member again; and then the home is lost, or the operator
    promotes the one that was behind."""
    at_home = rules.site_of(world.record.home)
    behind, third = (at_home + 1 + a % 2) % 3, (at_home + 2 - a % 2) % 3
    for other in range(3):
        faults.cut(world, behind, other)
    for _ in range(1 + b % 4):
        work(world, a // 2, 255)
    if a & 8:
        home.leave(world, world.sites[at_home], world.sites[behind].disk, forget=bool(a & 16))
        faults.tick(world, 0, 1 if a & 32 else 0)
    for _ in range(b // 4 % 4 * 2):
        work(world, a // 2, 255)
    if b & 16:
        world.cuts.clear()
        for _ in range(1 if a & 64 else 6):
            plane.look(world, behind, 0)
            copies.fetch(world, behind, 6)
            copies.confirm(world, behind, 0)
        home.grow(world, at_home, 0)
        if a & 128:
            faults.cut(world, behind, at_home)
            faults.cut(world, behind, third)
        plane.deliver(world, 0, 0)
        work(world, a // 2, 255)
    if b & 32:
        faults.crash(world, third, b // 8)
    if b & 64 and world.setting.forces:
        plane.look(world, behind, 0)
        copies.force(world, behind, 0)
        faults.tick(world, 0, 1)
        work(world, a // 4, 255)
    if b & 128:
        loss(world, a // 4, a // 8 | b)


def split(world: World, a: int, b: int) -> None:
    """The home is off the plane and hears one site only; it goes on with that one as long as its lease lasts, while the
    other, or the one that it hears, takes over."""
    at_home = rules.site_of(world.record.home)
    near, far = (at_home + 1 + a % 2) % 3, (at_home + 2 - a % 2) % 3
    work(world, a // 2, 255)
    if b & 128:
        faults.slow(world, at_home, 0)
    else:
        faults.isolate(world, at_home, 0)
    faults.cut(world, at_home, far)
    if b & 1:
        faults.isolate(world, near, 0)
    if b & 2:
        home.leave(world, world.sites[at_home], world.sites[far].disk, forget=False)
    for _ in range(1 + b // 4 % 3):
        work(world, a // 2, 255)
    if b & 16:
        faults.crash(world, near, 0)
    for _ in range(rules.LEASE_TICKS + rules.MARGIN_TICKS + 1):
        second(world, far, 63)
    for _ in range(2):
        work(world, a // 4, 255)
        for name in range(3):
            copies.hear(world, name, 1)
            copies.project(world, name, 3)
    if b & 32:
        faults.wipe(world, at_home, 0)
    if b & 64:
        faults.heal(world, at_home, 1)
        faults.heal(world, near, 1)


def handover(world: World, a: int, b: int) -> None:
    """A planned switchover, with writers that do not wait for it."""
    at_home = rules.site_of(world.record.home)
    target = (at_home + 1 + b % 2) % 3
    for _ in range(1 + a % 2):
        work(world, a // 2, a | 4)
    if b & 2:
        faults.cut(world, at_home, target)
    work(world, a // 4, a // 2)
    home.drain(world, at_home, b)
    clients.issue(world, a, a // 8)
    clients.submit(world, a, 0)
    home.write(world, at_home, 2)
    if b & 4:
        home.land(world, at_home, 0)
        copies.fetch(world, target, 6)
        copies.fetch(world, target, 7)
        copies.confirm(world, target, 0)
        home.say(world, at_home, 1)
    home.hand_over(world, at_home, 0)
    plane.deliver(world, 0, 0)
    if b & 8:
        work(world, a // 4, 255)
    faults.tick(world, 0, 1)
    if b & 16:
        faults.wipe(world, at_home, b // 2)
    second(world, at_home, 63 | b)
    work(world, a // 4, b | 15)


def late(world: World, a: int, b: int) -> None:
    """A takeover is under way to the plane, and its sender crashes and comes back before it arrives."""
    at_home = rules.site_of(world.record.home)
    site = (at_home + 1 + a % 2) % 3
    work(world, a // 2, 255)
    if world.setting.forces:
        plane.look(world, site, 0)
        copies.force(world, site, 0)
    if b & 1:
        faults.crash(world, site, 0)
        faults.restart(world, site, 0)
    for _ in range(2):
        work(world, a // 2, 255)
        home.say(world, at_home, 1)
    if b & 2:
        home.renew(world, at_home, 0)
    faults.tick(world, b // 4 % 2, 1)
    work(world, a // 2, 255)


def snapback(world: World, a: int, b: int) -> None:
    """A machine, mostly the home's, is put back to an earlier state, while others cannot be asked."""
    at_home = (rules.site_of(world.record.home) + b // 8 % 4 // 2) % 3
    if world.setting.restores:
        faults.snapshot(world, at_home, 0)
        for _ in range(1 + a % 3):
            work(world, a // 2, b | 4)
        faults.restore(world, at_home, b)
        for other in range(3):
            if b & (1 << other):
                faults.cut(world, at_home, other)
        for _ in range(2):
            second(world, at_home + 1, 63)
        work(world, a // 4, 255)


def pause(world: World, a: int, b: int) -> None:
    """The plane stalls for longer than a lease, and nothing else is wrong."""
    for _ in range(8):
        second(world, a, 63)
    faults.stall(world, 0, 8)
    for _ in range(10):
        second(world, a, 63)


# How often each step is drawn.
WEIGHTS: dict[Action, int] = {
    work: 40, second: 20, loss: 6, laggard: 5, split: 4, handover: 4, late: 3, snapback: 2, pause: 1,
    clients.issue: 8, clients.submit: 10, clients.hear_answer: 6, clients.sync: 6, clients.push: 5, clients.roam: 3,
    clients.store_unchanged: 2,
    home.write: 10, home.land: 10, home.say: 12, home.renew: 2, home.shrink: 2, home.grow: 3, home.drain: 1,
    home.hand_over: 3, home.salvage: 4,
    copies.fetch: 14, copies.confirm: 12, copies.hear: 10, copies.project: 14, copies.stand: 8, copies.start: 4,
    copies.force: 1,
    plane.deliver: 8, plane.answer: 8, plane.look: 8,
    faults.tick: 4, faults.long_time: 3, faults.drift: 1, faults.step: 1, faults.stall: 1, faults.cut: 2, faults.slow: 1,
    faults.isolate: 2, faults.heal: 3, faults.crash: 3, faults.restart: 3, faults.wipe: 2, faults.snapshot: 1,
    faults.restore: 1,
}  # fmt: skip
ACTIONS = {action.__name__: action for action in WEIGHTS}
NAMES = list(ACTIONS)
SWARM = (0, 1, 1, 1, 2, 6)


class Found(NamedTuple):
    """What a walk ran into. `at`: the step, or len(trace) = in the calm."""

    name: str
    what: str
    at: int


def setting_of(seed: int) -> Setting:
    return drawn(seed % 2 == 1, seed // 2)


def trace_of(seed: int) -> list[Step]:
    chance = random.Random(seed)
    # Swarm: each seed prefers some steps and does without others, so that seeds differ in kind.
    weights = [weight * chance.choice(SWARM) for weight in WEIGHTS.values()]
    names = chance.choices(NAMES, weights, k=chance.randrange(60, STEPS_MAX))
    bits = chance.getrandbits
    return [(name, bits(8), bits(8)) for name in names]


def play(setting: Setting, trace: list[Step], switches: Rules) -> Found | None:
    """All steps, then the calm. None: nothing was violated."""
    world = World(setting, switches)
    at = 0
    try:
        first_home(world)
        for at, (name, a, b) in enumerate(trace):  # noqa: B007
            if name != "force" or setting.forces:
                ACTIONS[name](world, a, b)
        at = len(trace)
        settle(world)
    except Violation as violation:
        return Found(violation.name, str(violation), at)
    return None


def run(seed: int, switches: Rules) -> Found | None:
    return play(setting_of(seed), trace_of(seed), switches)


def first_home(world: World) -> None:
    """Site 0 leads epoch 1."""
    site = world.sites[0]
    request = plane.Request(0, site.run, 0, 0, world.record)
    plane.begin_to_lead(world, site, request)


def settle(world: World) -> None:
    """All faults end; everybody does what there is to do until nothing is left."""
    world.settling = True
    world.stalled_until = 0
    world.cuts.clear()
    world.off_plane.clear()
    world.slow.clear()
    for site in world.sites:
        faults.restart(world, site.name, 0)
        if site.lead and site.lead.target:
            home.drain(world, site.name, 0)
    for round_ in range(ROUNDS_MAX):
        _round(world, round_)
        if is_calm(world):
            break
    else:
        world.violated(checks.SETTLES, f"not after {ROUNDS_MAX} rounds: {why_not(world)}")
    for client in world.clients:
        client.session = None
        clients.sync(world, client.name, 0)
        checks.check_cache(world, client, world.sites[client.site].tables)
    checks.check_calm(world)


def _round(world: World, round_: int) -> None:
    faults.tick(world, 0, 1)
    for site in world.sites:
        name = site.name
        plane.look(world, name, 0)
        copies.stand(world, name, 0)
        copies.start(world, name, 0)
        for source in range(2):
            for _ in range(4):
                copies.fetch(world, name, 6 + source)
        copies.confirm(world, name, 0)
        copies.hear(world, name, 0)
        for _ in range(4):
            copies.project(world, name, 3)
    for site in world.sites:
        if site.lead:
            _settle_home(world, site.name, round_)
    if round_ >= 20 and round_ % 8 == 0 and not any(site.lead for site in world.sites):
        # Nobody is eligible by itself: the operator promotes who has most.
        best = max(world.sites, key=lambda site: site.position(world.rules))
        copies.force(world, best.name, 0)
    for client in world.clients:
        clients.submit(world, client.name, 0)
        clients.hear_answer(world, client.name, 0)
        clients.sync(world, client.name, 0)


def _settle_home(world: World, name: int, round_: int) -> None:
    site = world.sites[name]
    if site.lead and site.lead.target:
        home.drain(world, name, 0)
    for _ in range(3):
        home.land(world, name, 0)
        home.write(world, name, 2)
        home.land(world, name, 0)
        home.say(world, name, 1)
    for other in range(3):
        home.salvage(world, name, other)
    if not world.setting.remote:  # With `remote`, what was shown is not lost with a disk.
        home.declare_destroyed(world, name, 0)
    lead = site.lead
    if lead and not lead.pending:
        disks = {other.disk for other in world.sites}
        gone = sorted(disk for disk, _ in lead.record.copies if disk != site.disk)
        if round_ > 3 and any(disk not in disks for disk in gone):
            home.leave(world, site, next(disk for disk in gone if disk not in disks), forget=True)
        elif lead.record.members < disks:
            home.grow(world, name, 0)


def is_calm(world: World) -> bool:
    return not why_not(world)


def why_not(world: World) -> str:
    site = world.sites[rules.site_of(world.record.home)]
    lead = site.lead
    if site.disk != world.record.home or lead is None or lead.epoch != world.record.epoch:
        return f"no home leads: {world.record}"
    if lead.queue or site.flight[1] or lead.waiting:
        return f"words are owed: {lead}"
    end = rules.at(lead.epoch, len(site.streams[lead.epoch]))
    for other in world.sites:
        if other.tables.position != end or other.record.epoch != lead.epoch:
            return f"site {other.name} shows {other.tables.position} of {end}, {other.record}"
    if world.rules.salvage and any(
        len(other.streams.get(old.epoch, ())) > max(old.last, lead.salvaged.get(old.epoch, 0))
        for old in lead.record.ended
        for other in world.sites
        if world.rules.salvage_from_any_copy or other.disk == old.home
    ):
        return "a tail is left"
    disks = {other.disk for other in world.sites}
    if world.rules.reaffirm_whole_if_destroyed and not world.setting.remote and any(
        old.gap and old.home not in disks and lead.salvaged.get(old.epoch, 0) < 1 << 30 for old in lead.record.ended
    ):
        return "a tail is not declared destroyed"
    return "" if all(clients.is_done(client) for client in world.clients) else "clients wait"


def shrunk(setting: Setting, trace: list[Step], switches: Rules) -> list[Step]:
    """A shorter trace that breaks the same invariant: pieces are left out while it still does."""
    found = play(setting, trace, switches)
    assert found is not None
    trace = trace[: found.at + 1]
    size = max(1, len(trace) // 2)
    while size:
        start = 0
        while start < len(trace):
            shorter = trace[:start] + trace[start + size :]
            again = play(setting, shorter, switches)
            if again is not None and again.name == found.name:
                trace = shorter
            else:
                start += size
        size //= 2
    return trace


def told(seed: int, switches: Rules, off: tuple[str, ...] = ()) -> str:
    """A failing seed for people: the shortest trace found, and the line that replays it."""
    setting, trace = setting_of(seed), trace_of(seed)
    found = play(setting, trace, switches)
    if found is None:
        return f"seed {seed}: nothing is violated"
    trace = shrunk(setting, trace, switches)
    last = play(setting, trace, switches)
    steps = "\n".join(f"  {name}({a}, {b})" for name, a, b in trace)
    replay = " ".join(["python -m tests.sim.model.walk", str(seed), *off])
    return f"seed {seed}, {setting}\n{steps}\n{last.what if last else found.what}\nreplay: {replay}"


def without(*names: str) -> Rules:
    return replace(Rules(), **dict.fromkeys(names, False))


if __name__ == "__main__":
    print(told(int(sys.argv[1]), without(*sys.argv[2:]), tuple(sys.argv[2:])))
