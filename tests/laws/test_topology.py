"""A topology that cannot hold is refused with its reason, and the way to one that can never lets go of a copy too early."""

from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.control.partitions import Member, Partition, sound, windowed
from cluster.control.topology import (
    Create,
    Level,
    Move,
    Place,
    Placement,
    Topology,
    TopologyRefused,
    described,
    moved,
    placed,
    plan,
    wanted,
)

SITES = ("pune", "mumbai", "dr")

some_sites = st.lists(st.sampled_from(SITES), unique=True, min_size=1, max_size=3)


@st.composite
def records(draw: st.DrawFn, name: str) -> Partition:
    home, *copies = draw(some_sites)
    if name == "directory":
        home, *copies = draw(st.permutations(SITES))
    remote = draw(st.booleans()) and bool(copies)
    members = tuple(Member(site, "life") for site in copies)
    strict = remote and draw(st.booleans())
    windows = {site: 7 for site in copies[1:] if name != "directory" and not name.startswith("queue") and draw(st.booleans())}
    return Partition(
        name,
        home,
        copies=tuple(copies),
        members=tuple(member for member in members if member.site not in windows),
        remote=remote,
        strict=strict,
        pinned=draw(st.booleans()),
        windows=windows,
    )


NAMES = ("directory", "mail-pune-1", "mail-mumbai-1", "queue-dr", "archive")
worlds = st.fixed_dictionaries({name: records(name) for name in NAMES})


def settings(partition: Partition) -> tuple[object, ...]:
    return partition.home, set(partition.copies), partition.remote, partition.strict, partition.pinned, partition.windows


@given(worlds, worlds)
def test_the_way_lets_go_of_no_copy_before_the_new_ones_are_level(
    now: Mapping[str, Partition], new: Mapping[str, Partition]
) -> None:
    for name in NAMES:
        there, whole = now[name], {now[name].home}
        for step in plan({name: there}, {name: new[name]}):
            match step:
                case Place():
                    gone = set(there.copies) - set(step.copies)
                    assert not gone or set(step.copies) <= whole, "what stays is whole before anything leaves"
                    assert there.home not in step.copies
                    there = sound(there, placed(there, step))
                    assert {member.site for member in there.members} <= set(there.copies) - set(there.windows)
                case Level():
                    assert step.site in there.copies, "only a copy that is asked for can become level"
                    whole.add(step.site)
                case Move():
                    assert step.site in there.copies and step.site in whole, "a home moves to a copy that is level"
                    there = msgspec.structs.replace(
                        there, home=step.site, copies=moved(there.copies, there.home, step.site)
                    )
                case _:
                    raise AssertionError(step)
            assert there.home in whole
        assert settings(there) == settings(new[name])


@given(worlds)
def test_what_is_shown_may_be_applied_again_and_changes_nothing(now: Mapping[str, Partition]) -> None:
    shown = msgspec.json.decode(msgspec.json.encode(described(now, SITES)), type=Topology)
    assert plan(now, wanted(now, shown, SITES, 3)) == ()


def standard() -> dict[str, Partition]:
    homes = (
        {"directory": "pune"} | {f"mail-{site}-1": site for site in SITES} | {f"queue-{site}": site for site in SITES}
    )
    return {name: Partition(name, home, copies=tuple(s for s in SITES if s != home)) for name, home in homes.items()}


def test_what_each_kind_means() -> None:
    now = standard()
    assert plan(now, wanted(now, Topology("active-active", SITES), SITES, 3)) == ()
    passive = wanted(now, Topology("active-passive", ("dr", "pune", "mumbai")), SITES, 3)
    assert {name: p.home for name, p in passive.items() if not name.startswith("queue")} == {
        "directory": "dr", "mail-pune-1": "dr", "mail-mumbai-1": "dr", "mail-dr-1": "dr",
    }  # fmt: skip
    assert passive["queue-mumbai"].home == "mumbai", "each site sends what was handed in there"
    hybrid = wanted(now, Topology("hybrid", ("pune", "mumbai", "dr")), SITES, 3)
    assert hybrid["mail-pune-1"].pinned and hybrid["queue-pune"].pinned and not hybrid["queue-mumbai"].pinned
    assert hybrid["mail-pune-1"].windows == {"mumbai": 7, "dr": 7}, "away from the edge a week of content"
    assert not hybrid["directory"].windows and not hybrid["queue-pune"].windows
    whole_at_dr = wanted(now, Topology("hybrid", SITES, windows={"mumbai": 30}), SITES, 3)
    assert whole_at_dr["mail-pune-1"].windows == {"mumbai": 30}
    command = wanted(now, Topology("active-active", SITES, "command"), SITES, 3)
    assert all(partition.pinned for partition in command.values())
    more = wanted(now, Topology("active-active", SITES, partitions={"mail-dr-2": Placement("dr", ("pune",))}), SITES, 3)
    assert plan(now, more) == (Create("mail-dr-2", "dr", ("pune",), False, False, False),)


def test_a_spool_stays_where_it_is() -> None:
    now = standard() | {f"spool-{site}": Partition(f"spool-{site}", site, pinned=True) for site in SITES}
    for kind in ("active-active", "active-passive", "hybrid"):
        new = wanted(now, Topology(kind, SITES), SITES, 3)
        assert not [step for step in plan(now, new) if "spool" in step.partition]  # type: ignore[union-attr]
    assert not [name for name in described(now, SITES).partitions if "spool" in name]
    for name in ("spool-pune", "spool-goa"):
        with pytest.raises(TopologyRefused, match="is a site's own spool"):
            wanted(now, Topology("active-active", SITES, partitions={name: Placement("dr")}), SITES, 3)


def test_who_may_follow_is_recognised_anew_where_the_home_could_not_have_meant_it() -> None:
    members = (Member("mumbai", "life"), Member("dr", "life"))
    pinned = Partition("mail-pune-1", "pune", copies=("mumbai", "dr"), members=members, pinned=True)
    # Cut off, it goes on as pinned; who follows it by what it said then would be a second home.
    assert sound(pinned, msgspec.structs.replace(pinned, pinned=False)).members == ()
    leased = msgspec.structs.replace(pinned, pinned=False)
    assert sound(leased, msgspec.structs.replace(leased, remote=True)).members == ()
    assert sound(leased, msgspec.structs.replace(leased, pinned=True)).members == members
    assert sound(leased, msgspec.structs.replace(leased, windows={"dr": 7})).members == members[:1]
    moved_there = msgspec.structs.replace(leased, home="dr", copies=("mumbai", "pune"), windows={"dr": 7, "pune": 0})
    assert windowed(moved_there, "dr") == 0 and windowed(moved_there, "mumbai") == 0


def with_one(**settings: object) -> Topology:
    return Topology("active-active", SITES, partitions={"mail-pune-1": Placement(**settings)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("topology", "words"),
    [
        (Topology("active-active", ("pune", "goa")), "there is no site goa"),
        (Topology("active-active", ("pune", "pune")), "each once"),
        (Topology("active-active", ()), "each once"),
        (with_one(home="goa"), "there is no site goa"),
        (with_one(home=("pune", "dr")), "2 homes; a partition has one"),
        (with_one(home="pune", copies=("pune", "dr")), "cannot be its copy as well"),
        (with_one(copies=("dr", "dr")), "named twice"),
        (with_one(copies=(), durability="remote"), "needs a copy somewhere"),
        (with_one(copies=()), "only copy would go"),
        (with_one(durability="local", strict=True), "means nothing"),
        (with_one(windows={"goa": 7}), "a window at goa, which has no copy of it"),
        (with_one(windows={"dr": -1}), "a window of -1 days"),
        (with_one(durability="remote", windows={"dr": 7, "mumbai": 7}), "needs a copy that keeps everything"),
        (Topology("active-active", SITES, partitions={"directory": Placement(windows={"dr": 7})}), "windows are for mail"),
        (Topology("active-active", ("pune", "mumbai")), "directory must be at every site"),
        (Topology("active-active", SITES, partitions={"Mail.1": Placement("dr")}), "no name for a partition"),
    ],
)
def test_what_cannot_hold_is_refused_with_the_reason(topology: Topology, words: str) -> None:
    with pytest.raises(TopologyRefused, match=words):
        wanted(standard(), topology, SITES, 3)


def test_two_sites_without_a_witness_cannot_decide() -> None:
    two = ("pune", "mumbai")
    now = {"directory": Partition("directory", "pune"), "mail-pune-1": Partition("mail-pune-1", "pune")}
    with pytest.raises(TopologyRefused, match="no quorum: 2 members"):
        wanted(now, Topology("active-active", two), two, 2)
    assert wanted(now, Topology("active-active", two), two, 3), "with a witness they can"
    assert wanted(now, Topology("active-active", two, "command"), two, 2)["directory"].pinned
