"""A site that goes leaves nothing behind and takes nothing along; and how a site's number of nodes is written down."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import partitions
from cluster.control.leaving import Empty, Goodbye, Remove, Staying, farewell
from cluster.control.partitions import Member, Partition, windowed
from cluster.control.topology import Level, Move, Place, TopologyRefused, moved, placed
from node.membership import turned_away
from node.nodes import with_workers

SITES = ("pune", "mumbai", "dr")
NAMES = ("directory", "mail-pune-1", "mail-mumbai-1", "queue-mumbai", "archive")


@st.composite
def records(draw: st.DrawFn, name: str) -> Partition:
    everywhere = name == partitions.DIRECTORY
    home, *copies = draw(st.permutations(SITES) if everywhere else st.lists(st.sampled_from(SITES), unique=True, min_size=1))
    windows = {site: 7 for site in copies if partitions.is_mail(name) and draw(st.booleans())}
    members = tuple(Member(site, "life") for site in copies if site not in windows)
    pinned, remote = draw(st.booleans()), bool(members) and draw(st.booleans())
    return Partition(name, home, copies=tuple(copies), members=members, remote=remote, pinned=pinned, windows=windows)


worlds = st.sampled_from(NAMES).flatmap(
    lambda name: st.fixed_dictionaries({each: records(each) for each in {partitions.DIRECTORY, name}})
)


def heir(record: Partition) -> str:
    return next((site for site in record.copies if site != "mumbai" and not windowed(record, site)), "")


def spool(site: str) -> Partition:
    return Partition(partitions.spool(site), site, pinned=True)


BYE = Goodbye("mumbai", "kim")
THREE_STAY = Staying(("pune", "dr"), 3, 3)


@given(worlds, st.booleans(), st.booleans())
def test_nothing_is_left_of_it_and_no_copy_is_let_go_before_what_stays_is_whole(
    now: Mapping[str, Partition], here: bool, other_spools: bool
) -> None:
    world = {**now, "spool-mumbai": spool("mumbai")} | ({"spool-dr": spool("dr")} if other_spools else {})
    try:
        steps = farewell(world, BYE, THREE_STAY, heir, here=here)
    except TopologyRefused:
        return
    after = dict(world)
    whole = {name: {record.home} for name, record in now.items()}
    for number, step in enumerate(steps):
        match step:
            case Level():
                assert step.site in after[step.partition].copies and step.site != "mumbai"
                whole[step.partition].add(step.site)
            case Move():
                there = after[step.partition]
                assert here and step.site in whole[step.partition] and step.site in there.copies
                copies = moved(there.copies, there.home, step.site)
                after[step.partition] = msgspec.structs.replace(there, home=step.site, copies=copies)
            case Place():
                assert set(after[step.partition].copies) - set(step.copies) == {"mumbai"}
                assert set(step.copies) <= whole[step.partition], "what stays is whole before it goes"
                after[step.partition] = placed(after[step.partition], step)
            case Empty():
                assert (step.partition, here) == ("spool-mumbai", True)
            case Goodbye():
                assert here and steps[number + 1 :] == (Remove("mumbai"),)
    assert steps[-1] == Remove("mumbai", away=not here) and (BYE in steps) == here
    for name in now:
        record = after[name]
        assert "mumbai" not in (record.home, *record.copies, *record.windows)
        assert record.copies or not now[name].copies, "nothing that was at two sites is at one"
        kept = (record.remote, record.strict, record.pinned)
        assert kept == (now[name].remote, now[name].strict, now[name].pinned)


def of_three(**settings: object) -> dict[str, Partition]:
    base = {
        "directory": Partition("directory", "pune", copies=("mumbai", "dr")),
        "mail-mumbai-1": Partition("mail-mumbai-1", "mumbai", copies=("pune", "dr")),
        "spool-mumbai": spool("mumbai"),
    }
    changed = msgspec.structs.replace(base["mail-mumbai-1"], **settings)
    return base | {"mail-mumbai-1": changed}


@pytest.mark.parametrize(
    ("world", "staying", "here", "words"),
    [
        (of_three(), THREE_STAY, False, "mumbai is away, and at home there are mail-mumbai-1: take them over first"),
        (of_three(copies=("pune",)), THREE_STAY, True, "mail-mumbai-1 would be at pune alone"),
        (of_three(copies=()), THREE_STAY, True, "no other site that is here has a whole copy of it"),
        (of_three(copies=("pune", "dr"), windows={"pune": 7, "dr": 7}), THREE_STAY, True, "has a whole copy of it"),
        (of_three(), Staying(("pune", "dr"), 2, 3), True, "no quorum: 2 members of the backbone would be left"),
        (of_three(), Staying(("pune",), 2, 3), True, "let a witness or another site join first, or say failover"),
        (of_three(home="pune", copies=("mumbai",), remote=True), Staying(("pune",), 1, 1), True, "mumbai the only copy"),
    ],
)
def test_what_does_not_hold_without_it_is_refused(world: dict[str, Partition], staying: Staying, here: bool, words: str) -> None:
    with pytest.raises(TopologyRefused, match=words):
        farewell(world, BYE, staying, heir, here=here)


def test_of_two_sites_one_stays_alone() -> None:
    world = {"directory": Partition("directory", "pune", copies=("mumbai",)), "spool-mumbai": spool("mumbai")}
    steps = farewell(world, BYE, Staying(("pune",), 1, 1), heir, here=True)
    assert steps == (Place("directory", (), False, False, False), Empty("spool-mumbai", "mumbai"), BYE, Remove("mumbai"))


def test_pinned_partitions_need_no_quorum_and_a_witness_no_copies() -> None:
    world = {name: msgspec.structs.replace(record, pinned=True) for name, record in of_three().items()}
    assert farewell(world, BYE, Staying(("pune", "dr"), 2, 3), heir, here=True)[-1] == Remove("mumbai")
    umpire = Goodbye("umpire", "kim")
    assert farewell(of_three(), umpire, Staying(SITES, 3, 3), heir, here=False) == (Remove("umpire", away=True),)


FILE = '[site]\nname = "x"\n\n[node]\n# workers = 1      # how many\nlog_level = "info"\n\n[limits]\n# workers = 9\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (FILE, "workers = 3      # how many\n"),
        (FILE.replace("# workers = 1", "workers=2"), "workers = 3      # how many\n"),
        (FILE.replace("# workers = 1      # how many\n", ""), "[node]\nworkers = 3\n"),
        ('[site]\nname = "x"', "\n[node]\nworkers = 3\n"),
    ],
)
def test_the_number_of_nodes_is_written_and_nothing_else(text: str, line: str) -> None:
    changed = with_workers(text, 3)
    assert line in changed
    before, after = tomllib.loads(text), tomllib.loads(changed)
    assert after.pop("node")["workers"] == 3
    assert {name: table for name, table in before.items() if name != "node"} == after
    assert with_workers(changed, 3) == changed
    assert "# workers = 9" in changed or "# workers = 9" not in text


def test_a_file_written_otherwise_is_left_alone() -> None:
    with pytest.raises(ValueError, match="by hand"):
        with_workers("node.workers = 2\n", 3)
    with pytest.raises(ValueError, match="by hand"):
        with_workers('text = """\n[node]\nworkers = 1\n"""\n', 3)


def test_a_site_that_is_let_in_nowhere_knows_it_by_its_engines_last_words(tmp_path: Path) -> None:
    log, now = tmp_path / "nats.log", 1_700_000_000.0
    assert not turned_away(log, now), "it has not started yet"
    refused = b"[7] 2026/11/24 14:06:39.861177 [ERR] 127.0.0.1:15562 - lid:44 - Leafnode Error 'Authorization Violation'\n"
    for words, at, is_so in (
        (refused + b"[INF] Leafnode connection closed\n", now - 1.0, True),
        (refused + b"[INF] Leafnode connection closed\n", now - 60.0, False),
        (refused + b"[INF] other words\n" * 60, now - 1.0, False),
        (b"[INF] Leafnode connection created\n", now - 1.0, False),
    ):
        log.write_bytes(words)
        os.utime(log, (at, at))
        assert turned_away(log, now) == is_so
