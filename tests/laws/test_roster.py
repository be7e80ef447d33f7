"""Who belongs to an organisation, and who of them keeps the control plane: whatever comes and goes, one or three keep it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.control.bucket import MemoryKeys
from cluster.control.roster import (
    Member,
    Roster,
    Rosters,
    Token,
    digest_of,
    formed,
    founded,
    joined,
    may_revoke,
    revoked,
)
from node import nkeys
from node.engines.nats import permissions
from node.releases import together
from node.tokens import JoinToken, TokenRefused, read, written

FIRST = Member("site-0", "192.0.2.1", 0)


def grown(steps: list[int], *, find: bool = True) -> list[Roster]:
    """0 = another one joins, n = the n-th of those there (not the first) is shut out. `find`: voters find together at
    once; else never."""
    roster, made, seen = founded(FIRST), 1, [founded(FIRST)]
    for step in steps:
        others = [member.site for member in roster.members if member != FIRST]
        if step == 0 or not others:
            roster = joined(roster, Member(f"site-{made}", "192.0.2.1", made * 100))
            made += 1
        else:
            gone = others[(step - 1) % len(others)]
            roster = (
                revoked(roster, gone)
                if may_revoke(roster, gone)
                else joined(roster, Member(f"late-{len(seen)}", "192.0.2.2", 0))
            )
        if find and roster.formed != roster.voters:
            assert len(roster.formed) == 1, "several take others in at once"
            roster = formed(roster)
        seen.append(roster)
    return seen


@given(st.lists(st.integers(0, 6), max_size=30))
def test_one_or_three_keep_it_and_always_the_first(steps: list[int]) -> None:
    for before, after in zip(seen := grown(steps), seen[1:], strict=False):
        assert after.number > before.number
        names = [member.site for member in after.members]
        assert len(set(names)) == len(names) and names[0] == after.voters[0] == after.authority == FIRST.site
        assert set(after.voters) <= set(names) and set(after.formed) <= set(names)
        assert not set(names) & {gone.site for gone in after.revoked}
        if len(names) >= 3:
            assert len(after.voters) == 3, "two could not decide without the other"
        assert len(after.formed) in (1, 2, 3) and (len(after.formed) > 1) >= (len(before.formed) > 1), (
            "several stay several"
        )
        # Who keeps it goes on: nobody is sent away for a newcomer.
        assert {voter for voter in before.voters if voter in names} <= set(after.voters)


@given(st.lists(st.integers(0, 6), max_size=30))
def test_while_they_have_not_found_together_one_keeps_it(steps: list[int]) -> None:
    for roster in grown(steps, find=False):
        assert roster.formed == ("site-0",) and len(roster.voters) == (3 if len(roster.members) >= 3 else 1)


def test_two_leave_it_with_the_first_and_the_fourth_is_only_linked() -> None:
    one, two, three, four = grown([0, 0, 0])
    assert one.voters == two.voters == ("site-0",)
    assert three.voters == ("site-0", "site-1", "site-2") == four.voters
    assert revoked(four, "site-1").formed == ("site-0", "site-2", "site-3")
    left = revoked(three, "site-1")
    assert left.formed == ("site-0", "site-2") and not may_revoke(left, "site-2")
    again = joined(left, Member("site-9", "192.0.2.1", 900))
    assert again.formed == again.voters == ("site-0", "site-2", "site-9") and may_revoke(again, "site-2")


async def test_an_older_roster_does_not_replace_a_newer_one_and_a_token_is_used_once() -> None:
    rosters = Rosters(MemoryKeys())
    assert await rosters.read() is None
    one, two, three = grown([0, 0])
    assert await rosters.write(two) and not await rosters.write(one) and not await rosters.write(two)
    assert await rosters.write(three) and await rosters.read() == three
    token = Token("a", digest_of("secret"), "", 10.0)
    await rosters.give(token)
    assert token.matches("secret") and not token.matches("secrets")
    assert await rosters.use(token, "mumbai", 5.0) and not await rosters.use(token, "dr", 5.0)
    kept = await rosters.token("a")
    assert kept is not None and (kept.used_by, kept.used_at) == ("mumbai", 5.0)
    assert await rosters.token("b") is None


@given(st.text(max_size=40), st.integers(0, 65535))
def test_a_token_is_read_as_it_was_written_even_if_a_terminal_broke_it(secret: str, port: int) -> None:
    token = JoinToken("pune.example.org", port, "ab" * 32, "1", secret, "mumbai", 1.5)
    text = written(token)
    assert read(text) == read(f"  {text[:40]}\n{text[40:]}\n") == token
    assert secret not in repr(token) or len(secret) < 3
    with pytest.raises(TokenRefused):
        read(text[:-8])


def test_a_key_is_told_from_what_is_none() -> None:
    seed, public = nkeys.make()
    assert seed.startswith("SU") and len(seed) == 58 and public.startswith("U") and len(public) == 56
    assert nkeys.valid(public) and not nkeys.valid(seed) and not nkeys.valid("") and not nkeys.valid("ä" * 56)
    assert not nkeys.valid(public[:10] + ("A" if public[10] != "A" else "B") + public[11:])


@pytest.mark.parametrize(
    ("one", "other", "can"),
    [("0.1.0", "0.1.7", True), ("0.1.0", "0.2.0", True), ("1.4.0", "1.3.9", True), ("1.4.0", "1.2.0", False), ("2.0.0", "1.9.0", False),
     ("x", "1.0", False)],
)  # fmt: skip
def test_neighbouring_releases_run_together(one: str, other: str, can: bool) -> None:
    assert together(one, other) is together(other, one) is can


def test_only_the_authority_writes_who_belongs_to_it() -> None:
    may = permissions("mumbai", "pune")
    assert not any(each.endswith(("control.>", "control.members")) for each in may["publish"]["allow"])
    assert "$JS.backbone.API.$KV.control.>" in permissions("pune", "pune")["publish"]["allow"]
    assert "_INBOX.mumbai.>" in may["subscribe"]["allow"] and "_INBOX.>" not in may["subscribe"]["allow"]
