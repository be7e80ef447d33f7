"""The control plane: one bucket over the backbone's members, there while a majority of them hear each other.

Its leader is lost with its machine or its majority: then nothing is written for 4 to 9 s (the engine's election), and the
old leader, if it lives on cut off, answers reads with what it last knew for some 15 s. A write that was under way then may
or may not have been done.
"""

from collections.abc import Callable

from tests.sim.engine import Answer, Streams
from tests.sim.world.network import PLANE, Mail, Network

ELECTION_S = (4.0, 9.0)
STALE_S_MAX = 15.0
COMMIT_S = 0.004


class Plane:
    def __init__(self, network: Network, members: tuple[str, ...]) -> None:
        self.network = network
        self.members = members
        self.is_up = dict.fromkeys(members, True)
        self.leader: str | None = members[-1]
        self.committed = Streams("backbone", network.now_ns, network.loop.time)
        self._stale: dict[str, tuple[Streams, float]] = {}  # what a member that lost touch last knew, and since when
        self._old: str | None = None  # the leader before, that may not know it yet
        self._election = 0
        self._stalled_until = 0.0
        self.committed_one: Callable[[str], None] = lambda subject: None
        network.plane = self.asked

    # -- who leads -----------------------------------------------------------------------------------------------------
    def member_down(self, member: str) -> None:
        self.is_up[member] = False
        self._stale.pop(member, None)
        self.changed()

    def member_up(self, member: str) -> None:
        """Nothing, if it is."""
        self.is_up[member] = True
        self.changed()

    def healed(self) -> None:
        """Members that hear each other again may call a new election."""
        self.changed()
        if self.leader is not None and self.network.chance.random() < 0.4:
            self._stalled_until = self.network.loop.time() + self.network.chance.uniform(0.5, 8)

    def changed(self) -> None:
        """After every change of links and members."""
        if self.leader is not None and not self._has_majority(self.leader):
            self._old, self.leader = self.leader, None
            self._elect_later()
        self._remember()

    def _remember(self) -> None:
        for member in self.members:
            if self.leader is not None and self._hear(member, self.leader):
                self._stale.pop(member, None)
            elif self.is_up[member] and member not in self._stale:
                kept = Streams("backbone", self.network.now_ns, self.network.loop.time)
                kept.put_back(self.committed.streams)
                self._stale[member] = kept, self.network.loop.time()

    def _elect_later(self) -> None:
        self._election += 1
        self.network.loop.call_later(self.network.chance.uniform(*ELECTION_S), self._elect, self._election)

    def _elect(self, election: int) -> None:
        if election != self._election or self.leader is not None:
            return
        able = [member for member in self.members if self._has_majority(member)]
        if not able:
            self.network.loop.call_later(1.0, self._elect, election)
            return
        self.leader = self.network.chance.choice(able)
        self._remember()

    def _hear(self, a: str, b: str) -> bool:
        return self.is_up[a] and self.is_up[b] and (a == b or self.network.both_ways(a, b))

    def _has_majority(self, member: str) -> bool:
        return 2 * sum(self._hear(member, other) for other in self.members) > len(self.members)

    # -- what is asked -------------------------------------------------------------------------------------------------
    def _door(self, site: str) -> str | None:
        """The member that the site's leaf link goes to: its own, or another that it reaches."""
        if self.is_up.get(site, False):
            return site
        others = (m for m in self.members if m != site and self.is_up[m] and self.network.both_ways(site, m))
        return next(others, None)

    def asked(self, site: str, mail: Mail) -> None:
        door = self._door(site)
        if door is None:
            return
        verb = mail.subject.removeprefix(PLANE)
        if verb.startswith("DIRECT.GET."):
            self.network.carry(site, door, lambda it: self._read(site, door, it, verb), mail)
            return
        to = self._old if self.leader is None or not self._hear(door, self.leader) else self.leader
        if to is None or (door != site and door != to and not self._hear(door, to)):
            return
        leader = to
        self.network.carry(site, leader, lambda it: self._at_leader(site, leader, it, verb), mail)

    def _read(self, site: str, member: str, mail: Mail, verb: str) -> None:
        stale = self._stale.get(member)
        if not self.is_up[member] or (stale and self.network.loop.time() - stale[1] > STALE_S_MAX):
            return
        streams = stale[0] if stale else self.committed
        self._reply(member, mail, streams.api(verb, mail.data))

    def _at_leader(self, site: str, member: str, mail: Mail, verb: str) -> None:
        if not self.is_up[member]:
            return
        if verb.startswith("STREAM.MSG.GET."):
            return self._read(site, member, mail, verb)
        if member != self.leader or self.network.loop.time() < self._stalled_until:
            return
        self.network.loop.call_later(COMMIT_S * self.network.chance.uniform(0.5, 3), self._commit, member, mail, verb)

    def _commit(self, member: str, mail: Mail, verb: str) -> None:
        lost = member != self.leader
        if lost and self.network.chance.random() < 0.5:
            return
        if verb.startswith("$KV."):
            stream = self.committed.taker(verb)
            if stream is None:
                return None if lost else self._reply(member, mail, None)
            answers: list[Answer] | None = [self.committed.store(stream, verb, mail.headers, mail.data)]
        else:
            answers = self.committed.api(verb, mail.data)
        self.committed_one(verb)
        if not lost:
            self._reply(member, mail, answers)

    def _reply(self, member: str, mail: Mail, answers: list[Answer] | None) -> None:
        for each in [Answer({"Status": "503"}, b"")] if answers is None else answers:
            self.network.send(member, Mail(mail.reply, "", each.headers, each.data))
