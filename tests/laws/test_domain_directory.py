"""What holds for domains, accounts, aliases and groups, and where mail for an address goes."""

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.domain.decision import Decision, Unappliable
from cluster.domain.directory import addresses
from cluster.domain.directory import commands as c
from cluster.domain.directory.decide import DECIDERS, decide, needs
from cluster.domain.directory.events import AnyEvent, Verifier
from cluster.domain.directory.resolve import Resolution, first_needs, may_send_as, resolve
from cluster.domain.directory.state import (
    Account,
    Alias,
    DirectoryState,
    Group,
    Missing,
    Slice,
    evolve,
    look_up,
)
from cluster.domain.refusal import Reason, Refusal

V = Verifier("$argon2id$…")

domains = st.sampled_from(["a.org", "B.org", "münchen.example", "else.example", "no domain"])
ADDRESSES = [
    "anna@a.org", "Bo@A.org", "carl@b.org", "all@a.org", "all+x@a.org", "some@b.org", "jörg@münchen.example",
    "postmaster@a.org", "postmaster@b.org", "abuse+1@b.org", "Out@Else.example", "nobody@a.org", "not an address",
]  # fmt: skip
address = st.sampled_from(ADDRESSES)
NEW = 0  # an id that the teller makes
several = st.lists(address, max_size=3).map(tuple)
label = st.sampled_from(["phone", "", "x" * 65, "a\nb"])
maybe = st.none() | st.booleans()

commands: st.SearchStrategy[c.AnyCommand] = st.one_of(
    st.builds(c.AddDomain, domains, st.just("") | address, st.booleans()),
    st.builds(c.AddDomain, domains),
    st.builds(c.ChangeDomain, domains, st.none() | st.just("") | address, maybe),
    st.builds(c.RemoveDomain, domains),
    st.builds(c.AddAccount, address, st.just(NEW), st.just("main"), st.just(""), st.just(V), st.booleans()),
    st.builds(c.AddAccount, address, st.just(NEW), st.just("main")),
    st.builds(c.ChangeAccount, address, st.none() | st.text(max_size=5), maybe, maybe, st.none() | st.integers(-1, 9)),
    st.builds(c.RemoveAccount, address),
    st.builds(c.SetPassword, address, st.just(V)),
    st.builds(c.AddAppPassword, address, label, st.just(V)),
    st.builds(c.RevokeAppPassword, address, label),
    st.builds(c.AddAlias, address, several),
    st.builds(c.RemoveAlias, address),
    st.builds(c.AddGroup, address, st.just("Group"), several),
    st.builds(c.ChangeGroupMembers, address, several, several),
    st.builds(c.RemoveGroup, address),
    st.builds(c.RecordTopology, st.just("move"), st.just("main"), st.just("home a"), st.just("home b")),
)
stories = st.lists(commands, max_size=30)
START = (c.AddDomain("a.org"), c.AddDomain("b.org"))


@dataclass
class Teller:
    state: DirectoryState = DirectoryState()
    ids: int = 1000

    def known(self, command: c.AnyCommand) -> Slice:
        """By rounds, as a site does it."""
        known, rounds = Slice(), 0
        while missing := needs(known, command):
            assert known.without_known(missing) == missing, "asked for what it has"
            known, rounds = look_up(self.state, missing, known), rounds + 1
            assert rounds < 50
        return known

    def tell(self, command: c.AnyCommand) -> Decision | Refusal:
        if isinstance(command, c.AddAccount) and command.account == NEW:
            self.ids += 1
            command = msgspec.structs.replace(command, account=self.ids)
        answer = decide(self.known(command), command)
        if isinstance(answer, Decision):
            for entity, event in answer.events:
                assert entity in self.state.domains or isinstance(command, c.AddDomain | c.RecordTopology)
                self.apply(event)  # type: ignore[arg-type]
        return answer

    def apply(self, event: AnyEvent) -> None:
        after = evolve(self.state, event)
        assert not isinstance(after, Unappliable)
        self.state = after

    def play(self, *story: c.AnyCommand) -> "Teller":
        for command in story:
            self.tell(command)
        return self

    def resolve(self, text: str) -> Resolution:
        known = look_up(self.state, first_needs(text), Slice())
        for _ in range(50):
            answer = resolve(known, text)
            if isinstance(answer, Resolution):
                return answer
            assert known.without_known(answer) == answer, "asked for what it has"
            known = look_up(self.state, answer, known)
        raise AssertionError("never had enough")

    def may_send_as(self, account: int, own: str, text: str) -> bool:
        known = Slice()
        while isinstance(answer := may_send_as(known, account, own, text), Missing):
            known = look_up(self.state, answer, known)
        return answer


def check(state: DirectoryState) -> None:
    for key, entry in state.entries.items():
        assert key == entry.address == addresses.canonical(key)
        assert addresses.domain_of(key) in state.domains
        assert _leads_not_back(state, key)
    accounts = [entry for entry in state.entries.values() if isinstance(entry, Account)]
    assert {account.id: account.address for account in accounts} == state.accounts


def _leads_not_back(state: DirectoryState, start: str) -> bool:
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        entry = state.entries.get(ahead.pop())
        following = entry.targets if isinstance(entry, Alias) else entry.members if isinstance(entry, Group) else ()
        for each in following:
            canonical = addresses.canonical(each)
            assert canonical is not None
            if canonical not in seen:
                seen.add(canonical)
                ahead.append(canonical)
    return start not in seen


@given(stories)
@settings(max_examples=150, deadline=None)
def test_a_directory_is_whole_after_every_command(story: list[c.AnyCommand]) -> None:
    teller = Teller().play(*START)
    for command in story:
        teller.tell(command)
        check(teller.state)


@given(stories)
@settings(deadline=None)
def test_every_address_resolves_and_postmasters_always_arrive(story: list[c.AnyCommand]) -> None:
    teller = Teller().play(*START, *story)
    for text in ADDRESSES:
        answer = teller.resolve(text)
        assert answer.complete and len(set(answer.accounts)) == len(answer.accounts)
        assert set(answer.accounts) <= teller.state.accounts.keys()
        assert answer == teller.resolve(text.upper()) or "Else" in text or answer.elsewhere
    if teller.state.accounts:
        # RFC 5321 §4.5.1, RFC 2142 §2
        for domain in teller.state.domains:
            assert all(teller.resolve(f"{name}@{domain}").known for name in ("postmaster", "Abuse", "postmaster+x"))


@given(stories, commands)
@settings(deadline=None)
def test_what_needs_names_is_enough(story: list[c.AnyCommand], command: c.AnyCommand) -> None:
    """A decision on the asked part of the directory is the decision on all of it."""
    teller = Teller().play(*START, *story)
    everything = Missing(
        frozenset(a for a in map(addresses.canonical, ADDRESSES) if a) | teller.state.entries.keys(),
        frozenset(["a.org", "b.org", "else.example", "xn--mnchen-3ya.example"]),
        frozenset(["a.org", "b.org", "else.example", "xn--mnchen-3ya.example"]),
        frozenset(["a.org", "b.org", "else.example", "xn--mnchen-3ya.example"]),
    )
    whole = look_up(teller.state, everything, teller.known(command))
    assert decide(teller.known(command), command) == decide(whole, command)


@given(st.text(), st.text(), st.text())
def test_any_text_is_answered(a: str, b: str, d: str) -> None:
    teller = Teller().play(*START)
    teller.play(
        c.AddDomain(d, b), c.ChangeDomain(d, a), c.AddAccount(f"{a}@{d}", 1, "p", b), c.AddAccount(f"{a}@a.org", 2, "p")
    )
    teller.play(c.AddGroup(f"{b}@a.org", a, (a, f"{a}@a.org")), c.AddAlias(f"x{a}@a.org", (f"{b}@a.org",)))
    teller.play(c.AddAppPassword(f"{a}@a.org", b, V), c.RemoveDomain(d), c.RemoveAccount(f"{a}@{d}"))
    check(teller.state)
    teller.resolve(a)


def _reason(answer: Decision | Refusal) -> Reason:
    assert isinstance(answer, Refusal) and answer.text
    return answer.reason


def _people() -> Teller:
    return Teller().play(
        *START, c.AddAccount("anna@a.org", 1, "p"), c.AddAccount("bo@a.org", 2, "p"), c.AddAccount("carl@b.org", 3, "p")
    )


def test_every_command_has_its_row() -> None:
    assert set(DECIDERS) == set(c.AnyCommand.__args__)


def test_refusals() -> None:
    teller = _people().play(c.AddAppPassword("anna@a.org", "phone", V), c.AddAlias("info@a.org", ("bo@a.org",)))
    table: list[tuple[c.AnyCommand, Reason]] = [
        (c.AddDomain("A.ORG"), Reason.DOMAIN_EXISTS),
        (c.AddDomain("-"), Reason.ADDRESS_INVALID),
        (c.AddDomain("c.org", "nonsense"), Reason.ADDRESS_INVALID),
        (c.RemoveDomain("a.org"), Reason.DOMAIN_IN_USE),
        (c.RemoveDomain("c.org"), Reason.NO_SUCH_DOMAIN),
        (c.ChangeDomain("c.org"), Reason.NO_SUCH_DOMAIN),
        (c.AddAccount("x@c.org", 9, "p"), Reason.NO_SUCH_DOMAIN),
        (c.AddAccount("ANNA@a.org", 9, "p"), Reason.ADDRESS_TAKEN),
        (c.AddAccount("info@a.org", 9, "p"), Reason.ADDRESS_TAKEN),
        (c.AddAlias("anna@a.org", ("bo@a.org",)), Reason.ADDRESS_TAKEN),
        (c.AddGroup("info@a.org"), Reason.ADDRESS_TAKEN),
        (c.AddAccount("nonsense", 9, "p"), Reason.ADDRESS_INVALID),
        (c.AddAlias("x@a.org", ()), Reason.ADDRESS_INVALID),
        (c.AddAlias("x@a.org", ("nonsense",)), Reason.ADDRESS_INVALID),
        (c.SetPassword("info@a.org", V), Reason.NO_SUCH_ACCOUNT),
        (c.RemoveAccount("x@a.org"), Reason.NO_SUCH_ACCOUNT),
        (c.RemoveAlias("anna@a.org"), Reason.NO_SUCH_ADDRESS),
        (c.RemoveGroup("info@a.org"), Reason.NO_SUCH_ADDRESS),
        (c.ChangeGroupMembers("x@a.org", ("bo@a.org",)), Reason.NO_SUCH_ADDRESS),
        (c.AddAppPassword("anna@a.org", "phone", V), Reason.CONFLICT),
        (c.RevokeAppPassword("anna@a.org", "tablet"), Reason.NO_SUCH_APP_PASSWORD),
        (c.AddGroup("x@a.org", "x", tuple(f"{n}@b.org" for n in range(10_001))), Reason.OVER_LIMIT),
        (c.AddAlias("x@a.org", tuple(f"{n}@b.org" for n in range(1_001))), Reason.OVER_LIMIT),
        (c.AddAccount("x@a.org", 9, "p", "ä" * 129), Reason.OVER_LIMIT),
        (c.AddAccount("x@a.org", 9, "p", "a\nb"), Reason.NOT_PERMITTED),
    ]
    for command, reason in table:
        assert _reason(teller.tell(command)) is reason, command


def test_groups_never_lead_back_by_any_way() -> None:
    teller = _people().play(
        c.AddGroup("g1@a.org", "", ("anna@a.org", "later@a.org")), c.AddAlias("to-g1@b.org", ("G1+x@a.org",))
    )
    assert _reason(teller.tell(c.AddGroup("later@a.org", "", ("to-g1@b.org",)))) is Reason.MEMBERS_LOOP
    assert _reason(teller.tell(c.ChangeGroupMembers("g1@a.org", ("to-g1@b.org",)))) is Reason.MEMBERS_LOOP
    assert _reason(teller.tell(c.ChangeGroupMembers("g1@a.org", ("g1@a.org",)))) is Reason.MEMBERS_LOOP
    assert _reason(teller.tell(c.AddAlias("self@a.org", ("Self+detail@a.org",)))) is Reason.MEMBERS_LOOP
    answer = teller.tell(c.AddGroup("g2@a.org", "", ("to-g1@b.org", "bo@a.org")))
    # What it rests on must not change meanwhile.
    assert (
        isinstance(answer, Decision)
        and "address/g1@a.org" in answer.depends
        and "address/to-g1@b.org" in answer.depends
    )
    assert teller.resolve("g2@a.org").accounts == (2, 1)


def test_a_group_in_bounds_resolves_and_one_nested_too_deep_is_refused() -> None:
    teller = Teller().play(*START, c.AddGroup("g0@a.org", "", tuple(f"{n}@else.example" for n in range(10_000))))
    assert len(teller.resolve("g0@a.org").elsewhere) == 10_000 and teller.resolve("g0@a.org").complete
    teller = _people().play(c.AddGroup("g0@a.org", "", ("anna@a.org",)))
    answers = [teller.tell(c.AddGroup(f"g{n + 1}@a.org", "", (f"g{n}@a.org",))) for n in range(25)]
    assert any(isinstance(answer, Refusal) and answer.reason is Reason.OVER_LIMIT for answer in answers)


def test_where_mail_goes() -> None:
    teller = _people().play(
        c.AddGroup("all@a.org", "", ("Anna@a.org", "bo@a.org", "Out@Else.example", "info@a.org")),
        c.AddAlias("info@a.org", ("bo@a.org",)),
        c.ChangeDomain("b.org", catch_all="carl@b.org", plus=False),
    )
    assert teller.resolve("ANNA+Lists@A.org") == Resolution((1,), (), True)
    assert teller.resolve("all@a.org") == Resolution((1, 2), ("Out@else.example",), True)
    assert teller.resolve("unknown@a.org") == Resolution((), (), True)
    assert teller.resolve("unknown@b.org") == Resolution((3,), (), True)
    assert teller.resolve("carl+x@b.org") == Resolution((3,), (), True)
    assert teller.resolve("Any.One@Else.example") == Resolution((), ("Any.One@else.example",), False)
    assert teller.resolve("nonsense") == Resolution()


def test_who_is_postmaster() -> None:
    teller = _people()
    assert teller.resolve("postmaster@b.org").accounts == (3,)
    teller.play(c.ChangeAccount("anna@a.org", administrator=True), c.ChangeAccount("bo@a.org", administrator=True))
    assert teller.resolve("Abuse@b.org").accounts == (1, 2)
    teller.play(c.ChangeAccount("carl@b.org", administrator=True))
    assert teller.resolve("postmaster@b.org").accounts == (3,)
    teller.play(c.AddAlias("postmaster@b.org", ("bo@a.org",)))
    assert teller.resolve("postmaster@b.org").accounts == (2,)
    # An alias that leads nowhere any more does not swallow it.
    teller.play(c.RemoveAccount("bo@a.org"))
    assert teller.resolve("postmaster@b.org").accounts == (3,)


def test_who_may_send_as_whom() -> None:
    teller = _people().play(
        c.AddAlias("info@a.org", ("anna@a.org",)), c.AddGroup("g@a.org", "", ("bo@a.org",)),
        c.ChangeDomain("b.org", catch_all="anna@a.org"),
    )  # fmt: skip
    for text, anna, bo in [
        ("Anna+x@a.org", True, False), ("info@a.org", True, False), ("g@a.org", False, True),
        ("any@b.org", False, False), ("x@else.example", False, False), ("nonsense", False, False),
    ]:  # fmt: skip
        assert (teller.may_send_as(1, "anna@a.org", text), teller.may_send_as(2, "bo@a.org", text)) == (anna, bo), text


@pytest.mark.parametrize("kind", ["password", "app password"])
def test_passwords_come_and_go(kind: str) -> None:
    teller = _people()
    if kind == "password":
        teller.play(c.SetPassword("anna@a.org", V))
    else:
        teller.play(c.AddAppPassword("anna@a.org", "phone", V), c.AddAppPassword("anna@a.org", "laptop", V))
        teller.play(c.RevokeAppPassword("anna@a.org", "phone"))
    account = teller.state.entries["anna@a.org"]
    assert isinstance(account, Account)
    assert (account.verifier, dict(account.app_passwords)) == ((V, {}) if kind == "password" else (None, {"laptop": V}))


def test_a_removed_address_is_free_and_its_late_events_are_passed_over() -> None:
    teller = _people()
    old = teller.tell(c.SetPassword("anna@a.org", V))
    teller.play(c.RemoveAccount("anna@a.org"), c.AddAccount("anna@a.org", 77, "p"))
    assert isinstance(old, Decision)
    before = teller.state
    teller.apply(old.events[0][1])  # type: ignore[arg-type]
    assert teller.state == before
