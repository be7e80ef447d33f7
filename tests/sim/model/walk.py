"""Random walks over the steps: drawn from a seed, replayed, shrunk. `python -m tests.sim.model.walk SEED [rule…]`
replays a seed with the named rules switched off, and prints the shortest trace found."""

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from tests.sim.model import checks, clients, copies, episodes, faults, home, plane, rules
from tests.sim.model.fold import WHOLE, Kind
from tests.sim.model.rules import Rules
from tests.sim.model.site import Request, Setting, Violation, World, drawn

Step = tuple[str, int, int]
Action = Callable[[World, int, int], None]

STEPS_MAX = 140
ROUNDS_MAX = 60

# How often each step is drawn.
WEIGHTS: dict[Action, int] = {
    episodes.work: 40, episodes.second: 20, episodes.loss: 6, episodes.laggard: 5, episodes.split: 4, episodes.handover: 4,
    episodes.late: 3, episodes.snapback: 2, episodes.pause: 1,
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
    names = chance.choices(NAMES, weights, k=chance.randrange(20, STEPS_MAX))
    bits = chance.getrandbits
    return [(name, bits(8), bits(8)) for name in names]


def play(setting: Setting, trace: list[Step], switches: Rules) -> Found | None:
    """All steps, then the calm. None: nothing was violated."""
    world = World(setting, switches)
    try:
        walk(world, trace)
        settle(world)
    except Violation as violation:
        return Found(violation.name, str(violation), world.steps)
    return None


def walk(world: World, trace: list[Step]) -> None:
    first_home(world)
    for name, a, b in trace:
        if name != "force" or world.setting.forces:
            ACTIONS[name](world, a, b)
        world.steps += 1


def run(seed: int, switches: Rules) -> Found | None:
    return play(setting_of(seed), trace_of(seed), switches)


class Figures(NamedTuple):
    """What a walk did: commands acknowledged, epochs begun after the first, events of tails salvaged, rollbacks."""

    words: int
    epochs: int
    salvaged: int
    rolled_back: int


def figures(seed: int) -> Figures:
    """Of a walk with all rules."""
    world = World(setting_of(seed), Rules())
    walk(world, trace_of(seed))
    settle(world)
    salvaged = sum(event.kind is Kind.REAFFIRMED for events in world.sites[0].streams.values() for event in events)
    rolled_back = sum(site.rolled_back for site in world.sites)
    return Figures(len(world.truth.acked), world.record.epoch - 1, salvaged, rolled_back)


def first_home(world: World) -> None:
    """Site 0 leads epoch 1."""
    site = world.sites[0]
    request = Request(0, site.run, 0, 0, world.record)
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
    if (
        world.rules.reaffirm_whole_if_destroyed
        and not world.setting.remote
        and any(
            old.gap and old.home not in disks and lead.salvaged.get(old.epoch, 0) < WHOLE for old in lead.record.ended
        )
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


def hunt(switches: Rules, seeds: Iterable[int]) -> Iterator[tuple[int, Found]]:
    """Seeds that break something."""
    for seed in seeds:
        found = run(seed, switches)
        if found is not None:
            yield seed, found


def without(*names: str) -> Rules:
    return replace(Rules(), **dict.fromkeys(names, False))


if __name__ == "__main__":
    print(told(int(sys.argv[1]), without(*sys.argv[2:]), tuple(sys.argv[2:])))
