"""Messages → threads (RFC 5256 §3): ORDEREDSUBJECT and REFERENCES.

Pure, and no slower than n log n: nothing recurses, and whether a link would close a loop is asked by walking up at most
STEPS_PER_MESSAGE for each message, in all. What real mail makes needs far less; a tail of links that were made up to cost
time is left out.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

STEPS_PER_MESSAGE = 64
STEPS_MIN = 10_000

NOBODY = -1


class Threadable(NamedTuple):
    """`number`: what the answer calls it, above 0, rising in mailbox order. `sent`: unix seconds (RFC 5256 §2.2). `subject`:
    base subject, collated. `reply`: a reply or forward (§3). `references`: as §3 has them, parents first."""

    number: int
    sent: int
    subject: str
    reply: bool = False
    message_id: str | None = None
    references: Sequence[str] = ()


class Forest(NamedTuple):
    """By node: `numbers` (0 = a dummy, which only stands at the top) and `children`; `roots` and all children in order."""

    roots: list[int]
    children: list[list[int]]
    numbers: list[int]

    def text(self) -> str:
        """RFC 5256 §5 thread-list, one after the other."""
        out: list[str] = []
        pending: list[int] = list(reversed(self.roots))
        while pending:
            node = pending.pop()
            if node == NOBODY:
                out.append(")")
                continue
            members: list[str] = []
            while True:
                if self.numbers[node]:
                    members.append(str(self.numbers[node]))
                children = self.children[node]
                if len(children) != 1:
                    break
                node = children[0]
            out.append("(" + " ".join(members) + (" " if members and children else ""))
            pending.append(NOBODY)
            pending.extend(reversed(children))
        return "".join(out)


def ordered_subject(messages: Iterable[Threadable]) -> Forest:
    """RFC 5256 §3 ORDEREDSUBJECT: the earliest message of each base subject, and all others beneath it."""
    firsts: dict[str, int] = {}
    children: list[list[int]] = []
    in_order = sorted(messages, key=lambda one: (one.sent, one.number))
    for node, one in enumerate(in_order):
        children.append([])
        first = firsts.setdefault(one.subject, node)
        if first != node:
            children[first].append(node)
    return Forest(list(firsts.values()), children, [one.number for one in in_order])


class References:
    """RFC 5256 §3 REFERENCES: `add` each message in mailbox order, then `threads` once. Steps are numbered as there.

    A node is a message or a dummy, that is an id of which no message was seen (number 0)."""

    def __init__(self) -> None:
        self._nodes: dict[str, int] = {}
        self._parents: list[int] = []
        self._kids: list[int] = []  # how many
        self._numbers: list[int] = []
        self._sent: list[int] = []
        self._subjects: list[str] = []
        self._replies: list[bool] = []
        self._steps = STEPS_MIN

    def add(self, one: Threadable) -> None:
        self._steps += STEPS_PER_MESSAGE
        me = self._message(one)
        last = NOBODY
        for reference in one.references:  # (1) (A)
            node = self._nodes.get(reference, NOBODY)
            if node == NOBODY:
                node = self._nodes[reference] = self._new()
            if last != NOBODY and self._parents[node] == NOBODY and not self._is_beneath(last, node):
                self._link(last, node)
            last = node
        old = self._parents[me]
        if old != last:  # (1) (B): the last reference is the parent, whatever others made of it
            if old != NOBODY:
                self._kids[old] -= 1
                self._parents[me] = NOBODY
            if last != NOBODY and not self._is_beneath(last, me):
                self._link(last, me)

    def _message(self, one: Threadable) -> int:
        """(1) (A): an id belongs to the first message that has it."""
        node = NOBODY if one.message_id is None else self._nodes.get(one.message_id, NOBODY)
        if node == NOBODY or self._numbers[node]:
            fresh = self._new()
            if node == NOBODY and one.message_id is not None:
                self._nodes[one.message_id] = fresh
            node = fresh
        self._numbers[node], self._sent[node] = one.number, one.sent
        self._subjects[node], self._replies[node] = one.subject, one.reply
        return node

    def _new(self) -> int:
        self._parents.append(NOBODY)
        self._kids.append(0)
        self._numbers.append(0)
        self._sent.append(0)
        self._subjects.append("")
        self._replies.append(False)
        return len(self._parents) - 1

    def _link(self, parent: int, child: int) -> None:
        self._parents[child] = parent
        self._kids[parent] += 1

    def _is_beneath(self, node: int, top: int) -> bool:
        """Whether a link from `node` down to `top` would close a loop (1) (A); True also when the steps are used up."""
        if not self._kids[top]:
            return node == top
        while node != NOBODY:
            if node == top or not self._steps:
                return True
            self._steps -= 1
            node = self._parents[node]
        return False

    # -- (2) to (6) --------------------------------------------------------------------------------------------------------
    def threads(self) -> Forest:
        children, roots = self._pruned()
        for root in roots:
            if not self._numbers[root]:
                children[root].sort(key=self._age)  # (4)
        roots.sort(key=lambda node: self._age(self._shown(node, children)))
        merged = self._merged(roots, children)
        for siblings in children:
            siblings.sort(key=self._age)  # (6)
        merged.sort(key=lambda node: self._age(self._shown(node, children)))
        return Forest(merged, children, self._numbers)

    def _pruned(self) -> tuple[list[list[int]], list[int]]:
        """(2) and (3): (children of each node, roots). Dummies are passed over, but those at the top with several beneath."""
        children: list[list[int]] = [[] for _ in self._parents]
        above: dict[int, int] = {}  # dummy → the message above it, or ~ the dummy at the top
        roots: list[int] = []
        beneath_dummies: dict[int, list[int]] = {}
        for node, number in enumerate(self._numbers):
            if not number:
                continue
            parent = self._parents[node]
            if parent == NOBODY:
                roots.append(node)
                continue
            holder = parent if self._numbers[parent] else self._above(parent, above)
            if holder >= 0:
                children[holder].append(node)
            else:
                beneath_dummies.setdefault(~holder, []).append(node)
        for dummy, members in beneath_dummies.items():
            if len(members) == 1:
                roots.append(members[0])
            else:
                children[dummy] = members
                roots.append(dummy)
        return children, roots

    def _above(self, dummy: int, known: dict[int, int]) -> int:
        """Walks each way up once."""
        way: list[int] = []
        node = dummy
        while True:
            if node in known:
                found = known[node]
                break
            if self._numbers[node]:
                found = node
                break
            way.append(node)
            if self._parents[node] == NOBODY:
                found = ~node
                break
            node = self._parents[node]
        known.update(dict.fromkeys(way, found))
        return found

    def _age(self, node: int) -> tuple[int, int]:
        return self._sent[node], self._numbers[node]

    def _shown(self, node: int, children: list[list[int]]) -> int:
        """Itself, or a dummy's first child."""
        return node if self._numbers[node] else children[node][0]

    def _merged(self, roots: list[int], children: list[list[int]]) -> list[int]:
        """(5): the roots, those of one subject together."""
        subjects = [self._subjects[self._shown(node, children)] for node in roots]
        table: dict[str, int] = {}
        for node, subject in zip(roots, subjects, strict=True):  # (5) (B)
            known = table.setdefault(subject, node)
            if self._numbers[known] and (not self._numbers[node] or self._replies[known] and not self._replies[node]):
                table[subject] = node
        moved: set[int] = set()
        made: list[int] = []
        for node, subject in zip(roots, subjects, strict=True):  # (5) (C)
            into = table[subject]
            if not subject or into == node or node in moved:
                continue
            moved.add(node)
            if not self._numbers[into]:
                children[into].extend([node] if self._numbers[node] else children[node])
            elif self._replies[node] and not self._replies[into]:
                children[into].append(node)
            else:
                moved.add(into)
                table[subject] = self._new()
                children.append([node, into])
                made.append(table[subject])
        return [node for node in (*roots, *made) if node not in moved]
