"""Steps made of steps: what must come together for something to go wrong, so that random walks get somewhere."""

from tests.sim.model import clients, copies, faults, home, plane, rules
from tests.sim.model.site import World


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
            home.say(world, name, 1 if b & 48 else 0)
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
