"""THREAD (RFC 5256 §3) against slow, plain readings of it; and what it costs."""

import time
from collections.abc import Sequence
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from cluster.formats import mime
from cluster.formats.threads import Forest, References, Threadable, ordered_subject

IDS = ("a", "b", "c", "d", "e", "f")
Tree = tuple[int, tuple["Tree", ...]]  # number (0 = dummy), children in order

messages = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(("", "x", "y")),
        st.booleans(),
        st.sampled_from((None, *IDS)),
        st.lists(st.sampled_from(IDS), max_size=4),
    ),
    max_size=9,
).map(lambda rows: [Threadable(n, *row) for n, row in enumerate(rows, 1)])


class Node:
    def __init__(self, one: Threadable | None = None) -> None:
        self.one = one
        self.parent: Node | None = None
        self.children: list[Node] = []

    @property
    def first(self) -> Threadable:
        return self.one or self.children[0].first

    def age(self) -> tuple[int, int]:
        return self.first.sent, self.first.number

    def take(self, child: "Node") -> None:
        if child.parent is not None:
            child.parent.children.remove(child)
        child.parent = self
        self.children.append(child)

    def holds(self, other: "Node") -> bool:
        return other is self or any(child.holds(other) for child in self.children)

    def tree(self) -> Tree:
        return (self.one.number if self.one else 0, tuple(child.tree() for child in self.children))


def plain_references(found: Sequence[Threadable]) -> list[Tree]:
    """The six steps, word by word."""
    nodes: dict[str, Node] = {}
    every: list[Node] = []

    def node_of(name: str) -> Node:
        if name not in nodes:
            nodes[name] = Node()
            every.append(nodes[name])
        return nodes[name]

    for one in found:
        me = node_of(one.message_id) if one.message_id is not None else Node()
        if me.one is not None or one.message_id is None:
            me = Node()
            every.append(me)
        me.one = one
        line = [node_of(name) for name in one.references]
        for above, beneath in zip(line, line[1:], strict=False):
            if beneath.parent is None and not beneath.holds(above):
                above.take(beneath)
        parent = line[-1] if line else None
        if me.parent is not parent:
            if me.parent is not None:
                me.parent.children.remove(me)
                me.parent = None
            if parent is not None and not me.holds(parent):
                parent.take(me)

    root = Node()
    for one_node in every:
        if one_node.parent is None:
            root.take(one_node)

    def pruned(node: Node) -> list[Node]:
        """What stands in its place, anywhere but at the top."""
        node.children = [kept for child in list(node.children) for kept in pruned(child)]
        for child in node.children:
            child.parent = node
        return [node] if node.one is not None else node.children

    tops: list[Node] = []
    for top in list(root.children):
        left = pruned(top)
        tops += left if len(left) < 2 else [top]
    for top in tops:
        if top.one is None:
            top.children.sort(key=Node.age)
    tops.sort(key=Node.age)
    table: dict[str, Node] = {}
    for top in tops:
        known = table.setdefault(top.first.subject, top)
        if known.one is not None and (top.one is None or (known.one.reply and not top.one.reply)):
            table[top.first.subject] = top
    for top in list(tops):
        subject = top.first.subject
        if top not in tops or not subject or table[subject] is top:
            continue
        into = table[subject]
        tops.remove(top)
        if top.one is None and into.one is None:
            into.children += top.children
        elif into.one is None or (top.one is not None and top.one.reply and not into.one.reply):
            into.children.append(top)
        else:
            dummy = Node()
            tops.remove(into)
            dummy.children = [top, into]
            table[subject] = dummy
            tops.append(dummy)

    def sort(node: Node) -> None:
        for child in node.children:
            sort(child)
        node.children.sort(key=Node.age)

    for top in tops:
        sort(top)
    return [top.tree() for top in sorted(tops, key=Node.age)]


def plain_ordered(found: Sequence[Threadable]) -> list[Tree]:
    in_order = sorted(found, key=lambda one: (one.subject, one.sent, one.number))
    threads = [list(members) for _, members in groupby(in_order, key=lambda one: one.subject)]
    threads.sort(key=lambda members: (members[0].sent, members[0].number))
    return [(members[0].number, tuple((one.number, ()) for one in members[1:])) for members in threads]


def trees(forest: Forest) -> list[Tree]:
    def tree(node: int) -> Tree:
        return forest.numbers[node], tuple(tree(child) for child in forest.children[node])

    return [tree(root) for root in forest.roots]


def written(found: Sequence[Tree]) -> str:
    """RFC 5256 §5 thread-list."""

    def members(number: int, children: tuple[Tree, ...]) -> str:
        own = str(number) if number else ""
        if len(children) == 1:
            return f"{own} {members(*children[0])}".strip()
        return f"{own} {written(children)}".strip()

    return "".join(f"({members(*one)})" for one in found)


def threaded(found: Sequence[Threadable]) -> Forest:
    references = References()
    for one in found:
        references.add(one)
    return references.threads()


@given(messages)
def test_references(found: list[Threadable]) -> None:
    forest = threaded(found)
    assert trees(forest) == plain_references(found)
    assert forest.text() == written(trees(forest))
    said = forest.text().replace("(", " ").replace(")", " ").split()
    assert sorted(map(int, said)) == [one.number for one in found]  # each message once


@given(messages)
def test_ordered_subject(found: list[Threadable]) -> None:
    assert trees(ordered_subject(found)) == plain_ordered(found)


def seconds(found: Sequence[Threadable]) -> float:
    began = time.process_time()
    threaded(found).text()
    return time.process_time() - began


def test_long_chains_and_their_like_cost_no_square() -> None:
    """Replies to replies, in both orders; dummies in a line above many; a line of links that is cut in its middle."""
    count = 6000
    chain = [Threadable(n, n, "", True, str(n), (str(n - 1),)) for n in range(1, count)]
    turned = [one._replace(number=n) for n, one in enumerate(reversed(chain), 1)]
    line = tuple(f"d{n}" for n in range(count))
    pieces = [Threadable(n + 1, 0, "", False, None, line[n * 90 : n * 90 + 100]) for n in range(count // 90)]
    leaves = [Threadable(len(pieces) + n, 0, "", False, None, line[-1:]) for n in range(1, count)]
    cuts = [
        Threadable(len(pieces) + n, 0, "", False, line[n], line[n - 2 : n - 1]) for n in range(count // 3, count // 2)
    ]
    for shape in (chain, turned, pieces + leaves, pieces + cuts):
        # A square of 6,000 is 36 million steps, ten seconds here.
        assert seconds(shape) < 3, shape[:2]


# -- base subjects -------------------------------------------------------------------------------------------------------

plain_words = st.sampled_from(("plan", "a [b] c", "re", "fwd", "[x]", "(fwd", "re :x"))
leaders = st.sampled_from(("Re:", "RE: ", "fwd:", "Fw [list] :", "[list] re: ", "[a][b]Re: ", "re[2]: "))
trailers = st.sampled_from((" (fwd)", "(FWD) ", " ", "\t"))


@given(
    st.sampled_from(("plan", "the plan for May", "x: y")),
    st.lists(leaders, max_size=3),
    st.lists(trailers, max_size=3),
    st.booleans(),
)
def test_base_subject(base: str, before: list[str], behind: list[str], forwarded: bool) -> None:
    """RFC 5256 §2.1: whatever was put around it, the base comes back; and it is known whether anything was that answers."""
    subject = "".join(before) + base + "".join(behind)
    if forwarded:
        subject = f"[fwd: {subject}]"
    answers = bool(before) or any("(" in one for one in behind) or forwarded
    assert mime.read_subject(subject) == (base, answers)


@given(st.text(alphabet="re:fwd()[] \tx", max_size=40))
def test_base_subject_of_anything(subject: str) -> None:
    base, _ = mime.read_subject(subject)
    assert base == base.strip() and mime.base_subject(base) == base
