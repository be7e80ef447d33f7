"""A quota refuses what does not fit and nothing else; what is decided on it never passes it."""

from fractions import Fraction
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from cluster.domain.mailbox.commands import (
    AnyCommand,
    AppendMessage,
    CopyMessages,
    Deliver,
    Expunge,
    NewMessage,
    ReplaceMessage,
)
from cluster.domain.mailbox.content import Content
from cluster.domain.mailbox.decide import decide, tree_reads
from cluster.domain.mailbox.events import Made, MailboxesCreated
from cluster.domain.mailbox.needs import adds, weighs
from cluster.domain.mailbox.state import AccountMail, MailState, evolve, messages_of, tree_of
from cluster.domain.quota import Held, Override, Quota, Usage
from cluster.domain.refusal import Reason, Refusal

ACCOUNT, INBOX, OTHER = 7, 1, 2
NAMES = {"INBOX": INBOX, "Other": OTHER}

limits = st.integers(0, 40)
quotas = st.builds(Quota, limits, limits, st.lists(st.integers(1, 99), unique=True, max_size=4).map(sorted).map(tuple))
amounts = st.builds(Usage, st.integers(0, 60), st.integers(0, 60))


@given(quotas, amounts, st.builds(Usage, st.integers(-20, 60), st.integers(-1, 60)))
def test_it_refuses_what_does_not_fit_and_nothing_else(quota: Quota, usage: Usage, adding: Usage) -> None:
    pairs = ((quota.storage, usage.storage, adding.storage), (quota.messages, usage.messages, adding.messages))
    fits = all(not limit or more <= 0 or used + more <= limit for limit, used, more in pairs)
    refusal = Held(quota, usage).refuses(adding)
    assert (refusal is None) is fits
    if refusal is not None:
        # Said to be for ever only where an empty account would not take it either.
        empty = Held(quota, Usage()).refuses(adding)
        assert (refusal.reason is Reason.ABOVE_QUOTA) <= (empty is not None)


@given(quotas, amounts)
def test_a_threshold_is_reached_where_so_much_of_a_limit_is_used(quota: Quota, usage: Usage) -> None:
    pairs = ((usage.storage, quota.storage), (usage.messages, quota.messages))
    used = max((Fraction(used * 100, limit) for used, limit in pairs if limit), default=Fraction(0))
    assert Held(quota, usage).reached == tuple(each for each in sorted({*quota.soft, 100}) if used >= each)


optional = st.none() | limits


@given(quotas, optional, optional, st.none() | st.just((50,)))
def test_an_account_s_own_word_goes_before_its_domain_s(
    domain: Quota, storage: int | None, messages: int | None, soft: tuple[int, ...] | None
) -> None:
    quota = Override(storage, messages, soft).over(domain)
    assert quota.storage == (domain.storage if storage is None else storage)
    assert quota.messages == (domain.messages if messages is None else messages)
    assert quota.soft == (domain.soft if soft is None else soft)
    assert bool(quota) is bool(quota.storage or quota.messages)


def content(size: int) -> Content:
    return Content(bytes([size]) * 32, size, (), b"")


contents = st.integers(0, 15).map(content)
places = st.sampled_from(sorted(NAMES))
ids = st.sampled_from([INBOX, OTHER])
new = st.builds(NewMessage, contents, st.just(0))
spans = st.tuples(st.integers(1, 6), st.integers(0, 4)).map(lambda pair: ((pair[0], sum(pair)),))
commands: st.SearchStrategy[AnyCommand] = st.one_of(
    st.builds(AppendMessage, st.just(ACCOUNT), places, st.lists(new, min_size=1, max_size=3).map(tuple)),
    st.builds(Deliver, st.just(ACCOUNT), contents, st.just(0), st.just((11, 12, 13, 14, 15, 16))),
    st.builds(CopyMessages, st.just(ACCOUNT), ids, places, spans, st.booleans()),
    st.builds(ReplaceMessage, st.just(ACCOUNT), ids, st.integers(1, 4), places, new),
    st.builds(Expunge, st.just(ACCOUNT), ids, spans, st.just(False)),
)


def held(mail: AccountMail) -> Usage:
    there = [message.content.size for box in mail.boxes.values() for message in box.messages.values()]
    return Usage(sum(there), len(there))


def weight(mail: AccountMail, command: AnyCommand) -> Usage:
    weighed = weighs(command)
    if weighed is None:
        return Usage()
    source, ((first, last),) = weighed
    there = [message.content.size for uid, message in mail.boxes[source].messages.items() if first <= uid <= last]
    return Usage(sum(there), len(there))


@given(st.builds(Quota, st.integers(0, 40), st.integers(0, 6)), st.lists(commands, max_size=25))
def test_what_is_decided_on_it_adds_what_was_said_and_never_passes_it(quota: Quota, asked: list[AnyCommand]) -> None:
    state: Any = evolve(MailState(), ACCOUNT, MailboxesCreated(tuple(Made(id, name) for name, id in NAMES.items())), 1)
    position = 1
    for command in asked:
        mail = state.accounts[ACCOUNT]
        before, more = held(mail), weight(mail, command)
        tree: Any
        if isinstance(command, Expunge):
            tree = messages_of(state, ACCOUNT, command.mailbox, command.uids)
        else:
            tree = tree_of(state, ACCOUNT, tree_reads(command))
            free = decide(tree, command)
            tree = msgspec.structs.replace(tree, held=Held(quota, before), weight=more)
        decision = decide(tree, command)
        if isinstance(decision, Refusal):
            # Nothing but a quota makes a difference, and only where there is none too little room.
            if decision.reason in (Reason.OVER_QUOTA, Reason.ABOVE_QUOTA):
                assert not isinstance(free, Refusal) and Held(quota, before).refuses(adds(command, more)) is not None
            continue
        for _, event in decision.events:
            position += 1
            state = evolve(state, ACCOUNT, event, position)  # type: ignore[arg-type]
            assert isinstance(state, MailState)
        after = held(state.accounts[ACCOUNT])
        if not isinstance(command, Expunge):
            moved = isinstance(command, CopyMessages) and command.moved
            assert after == (before if moved else before.plus(adds(command, more)))
        assert not quota.storage or after.storage <= max(quota.storage, before.storage)
        assert not quota.messages or after.messages <= max(quota.messages, before.messages)
