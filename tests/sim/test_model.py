"""The failover rules hold in every walk drawn; and without any one of them some walk breaks what it is there for."""

import os
import time
from dataclasses import fields

import pytest

from tests.sim.model import checks, walk
from tests.sim.model.rules import Rules
from tests.sim.model.site import Setting

# CI's share of one core; ANGARIUM_MODEL_SECONDS=600 for a night, ANGARIUM_MODEL_FROM=n to begin at another seed.
SECONDS_MAX = float(os.environ.get("ANGARIUM_MODEL_SECONDS", "10"))
FIRST_SEED = int(os.environ.get("ANGARIUM_MODEL_FROM", "0"))
SEEDS_MIN = 500  # on a machine that is busy with other things

# Rule → the seed and the invariant that is broken without it. Seeds are of today's `walk.WEIGHTS`: whoever changes the
# steps looks for new ones with `walk.hunt`.
NEEDED: dict[str, tuple[int, str]] = {
    "fold_ignores_repeats": (11, checks.NOT_DOUBLED),
    "gap_at_unclean_end": (14, checks.ONE_CONTENT),
    "gap_for_every_ended_epoch": (76, checks.ONE_CONTENT),
    "uids_bounded_by_members": (22, checks.ONE_CONTENT),
    "uids_bounded_by_copies": (646, checks.ONE_CONTENT),
    "forced_gap_is_wider": (646, checks.ONE_CONTENT),
    "unknown_copy_changes_uidvalidity": (1959, checks.ONE_CONTENT),
    "word_needs_lease": (12, checks.ONE_HOME),
    "lease_by_boot_clock": (891, checks.ONE_HOME),
    "wait_counts_own_writes": (11, checks.HEALTHY_STAYS),
    "takeover_on_seen_revision": (18, checks.ONE_HOME),
    "nothing_above_mark": (187, checks.CACHE_IS_TRUE),
    "remote_waits_for_members": (5, checks.NEVER_LOST),
    "pending_members_count": (375, checks.NOT_ROLLED_BACK),
    "position_is_contiguous": (338, checks.SETTLES),
    "freeze_before_promotion": (9, checks.NOT_ROLLED_BACK),
    "freeze_survives_crash": (429, checks.NOT_ROLLED_BACK),
    "most_advanced_is_promoted": (18, checks.REACHABLE_IS_KEPT),
    "later_takeover_lowers_ends": (86, checks.SETTLES),
    "start_begins_epoch": (3425, checks.ONE_EVENT),
    "start_hears_a_member": (5015, checks.ONE_CONTENT),
    "switchover_waits_for_copy": (42, checks.SETTLES),
    "silent_after_end": (31, checks.ONE_HOME),
    "follower_stops_at_end": (8, checks.ONE_STORY),
    "roll_back_beyond_end": (14, checks.ONE_CONTENT),
    "salvage": (38, checks.NEVER_LOST),
    "salvage_from_any_copy": (354, checks.SETTLES),
    "salvage_keeps_command_id": (9, checks.NOT_DOUBLED),
    "salvage_maps_objects": (446, checks.NEVER_LOST),
    "reaffirm_touched": (824, checks.CACHE_IS_TRUE),
    "reaffirm_whole_if_destroyed": (14, checks.CACHE_IS_TRUE),
    "token_beyond_end_is_lost": (60, checks.CACHE_IS_TRUE),
    "clamp_only_what_is_salvaged": (60, checks.CACHE_IS_TRUE),
    "wait_for_token": (4, checks.TOKENS_RISE),
    "bye_when_rolled_back": (876, checks.TOKENS_RISE),
    "own_write_must_be_in_history": (70, checks.OWN_WRITES),
    "decided_on_lost_is_refused": (298, checks.NEVER_LOST),
}

# The same for rules that a blind walk seldom needs: the shortest traces found, under the setting that they were found in.
LOCAL = Setting(remote=False)
LOCAL_ALL = Setting(remote=False, wipes=True, forces=True)
REMOTE = Setting(remote=True, wipes=True)
RESTORED = Setting(remote=True, wipes=True, restores=True)
NEEDED_IN: dict[str, tuple[Setting, list[walk.Step], str]] = {
    "bound_over_all_positions": (
        LOCAL,
        [("handover", 71, 55), ("second", 253, 124), ("handover", 9, 24), ("laggard", 238, 148), ("loss", 61, 111)],
        checks.ONE_CONTENT,
    ),
    "lease_has_margin": (LOCAL, [("loss", 121, 233), ("loss", 5, 153), ("loss", 123, 17)], checks.ONE_HOME),
    "deadline_before_send": (
        LOCAL,
        [("renew", 81, 171), ("deliver", 143, 234), ("loss", 124, 70), ("slow", 27, 175), ("loss", 247, 201)],
        checks.ONE_HOME,
    ),
    "lost_answer_counts_earliest": (
        LOCAL,
        [("renew", 81, 239), ("loss", 218, 212), ("second", 229, 12), ("loss", 187, 143)],
        checks.ONE_HOME,
    ),
    "members_only": (
        REMOTE,
        [("laggard", 74, 242), ("laggard", 112, 165), ("split", 169, 198), ("split", 211, 234)],
        checks.NEVER_LOST,
    ),
    "shrink_before_word": (REMOTE, [("split", 153, 162), ("split", 123, 17)], checks.NOT_ROLLED_BACK),
    "grow_when_caught_up": (
        REMOTE,
        [("laggard", 237, 30), ("second", 179, 189), ("split", 78, 245)],
        checks.NOT_ROLLED_BACK,
    ),
    "restarted_must_be_recognised": (
        RESTORED,
        [("work", 16, 47), ("snapback", 182, 87), ("split", 3, 221)],
        checks.NOT_ROLLED_BACK,
    ),
    "reaffirm_names_uidvalidity": (
        LOCAL_ALL,
        [("laggard", 43, 30), ("work", 28, 32), ("second", 176, 48), ("loss", 221, 109), ("wipe", 127, 123),
         ("laggard", 185, 5), ("laggard", 91, 92)],
        checks.CACHE_IS_TRUE,
    ),
    "unchangedsince_needs_token": (LOCAL, [("loss", 115, 31), ("loss", 40, 211)], checks.CACHE_IS_TRUE),
}  # fmt: skip


@pytest.mark.timeout(600)
def test_with_all_rules_nothing_is_ever_violated() -> None:
    until = time.monotonic() + SECONDS_MAX
    seed = FIRST_SEED
    while time.monotonic() < until or seed < FIRST_SEED + SEEDS_MIN:
        if walk.run(seed, Rules()) is not None:
            pytest.fail(walk.told(seed, Rules()))
        seed += 1
    print(f"{seed - FIRST_SEED} seeds in {SECONDS_MAX:.0f} s")


def test_every_rule_has_a_seed_that_needs_it() -> None:
    assert set(NEEDED) | set(NEEDED_IN) == {field.name for field in fields(Rules)}


@pytest.mark.parametrize("rule", NEEDED)
def test_without_this_rule_something_breaks(rule: str) -> None:
    seed, name = NEEDED[rule]
    found = walk.run(seed, walk.without(rule))
    assert found is not None and found.name == name, found
    assert walk.run(seed, Rules()) is None


@pytest.mark.parametrize("rule", NEEDED_IN)
def test_without_this_rule_this_trace_breaks(rule: str) -> None:
    setting, trace, name = NEEDED_IN[rule]
    found = walk.play(setting, trace, walk.without(rule))
    assert found is not None and found.name == name, found
    assert walk.play(setting, trace, Rules()) is None


def test_a_failing_seed_is_shrunk_and_can_be_replayed() -> None:
    seed, name = NEEDED["word_needs_lease"]
    setting, trace = walk.setting_of(seed), walk.trace_of(seed)
    switches = walk.without("word_needs_lease")
    short = walk.shrunk(setting, trace, switches)
    found = walk.play(setting, short, switches)
    assert found is not None and found.name == name
    assert len(short) < len(trace)
    assert f"walk {seed} word_needs_lease" in walk.told(seed, switches, ("word_needs_lease",))


def test_the_same_seed_walks_the_same_way() -> None:
    assert walk.trace_of(7) == walk.trace_of(7)
    assert walk.setting_of(7) == walk.setting_of(7)


def test_walks_go_where_it_hurts() -> None:
    """Not everything is refused for safety's sake: words are given, homes lost, tails salvaged, sessions rolled back."""
    seen = [walk.figures(seed) for seed in range(150)]
    assert sum(figure.words for figure in seen) > 500
    assert sum(figure.epochs for figure in seen) > 200
    assert sum(figure.salvaged for figure in seen) > 100
    assert sum(figure.rolled_back for figure in seen) > 20
    assert checks.NEVER_LOST in {name for _, name in NEEDED.values()}
