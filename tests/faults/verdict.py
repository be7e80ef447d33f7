"""What must be so after any fault, by what the clients wrote down."""

import asyncio
from collections import Counter

from tests.faults.clients import GONE, Imap
from tests.faults.load import DONE, WORK, Shown, Story, highest_of, listed, text, validity_of, whole
from tests.faults.site import Site

SETTLED_S_MAX = 30.0
POLL_S = 0.05


async def judge(site: Site, story: Story) -> list[str]:
    """What is wrong, in words; empty when every promise was kept."""
    await _settled(site, story)
    wrong = list(story.wrong)
    anna, ben = site.people
    there = {
        (who, mailbox): await _read(site, story, who, mailbox)
        for who, mailbox in ((anna, "INBOX"), (ben, "INBOX"), (ben, WORK), (ben, DONE))
    }
    wrong += story.wrong[len(wrong) :]
    for who in (anna, ben):
        wrong += delivered(story, who, there[who, "INBOX"])
    wrong += worked(story, there[ben, WORK], there[ben, DONE])
    wrong += vanished(story, there)
    return wrong


async def _settled(site: Site, story: Story) -> None:
    """SMTP's 250 waits for the log only, IMAP's OK for the tables too: after one of those all that was before is shown."""
    ben = list(site.people)[1]
    async with asyncio.timeout(SETTLED_S_MAX):
        while True:
            imap = await signed_in(site, ben)
            try:
                name = f"settled-{len(story.states)}"
                story.states[name] = {None, (DONE, False)}
                await imap.ask(f"CREATE {DONE}")
                if (await imap.ask(f"APPEND {DONE}", text(name))).state == "OK":
                    story.states[name] = {(DONE, False)}
                    return
            except GONE:
                await asyncio.sleep(POLL_S)
            finally:
                imap.close()


async def signed_in(site: Site, who: str) -> Imap:
    async with asyncio.timeout(SETTLED_S_MAX):
        while True:
            try:
                return await Imap.connect(site.config.ports.imap, who, site.people[who])
            except GONE:
                await asyncio.sleep(POLL_S)


async def _read(site: Site, story: Story, who: str, mailbox: str) -> list[Shown]:
    imap = await signed_in(site, who)
    try:
        selected = await imap.ask(f"EXAMINE {mailbox} (CONDSTORE)")
        assert selected.state == "OK", selected
        validity = validity_of(selected.untagged)
        story.look_highest(who, mailbox, highest_of(selected.untagged))
        found = await listed(imap, "1:*", header_only=False)
        for shown in found:
            story.look(who, mailbox, validity, shown)
            if not whole(shown.raw):
                story.wrong.append(f"{shown.name} in {mailbox} of {who} has other bytes")
        return found
    finally:
        imap.close()


def delivered(story: Story, who: str, shown: list[Shown]) -> list[str]:
    counts = Counter(each.name for each in shown)
    wrong = [f"{name} is {count} times in INBOX of {who}" for name, count in counts.items() if count > 1]
    wrong += [f"{name} in INBOX of {who} was never sent there" for name in counts if who not in _to(story, name)]
    wrong += [
        f"{name} was acknowledged and is not in INBOX of {who}"
        for name, (_, have) in story.sent.items()
        if who in have and not counts[name]
    ]
    return wrong


def _to(story: Story, name: str) -> tuple[str, ...]:
    return story.sent.get(name, ((), ()))[0]


def worked(story: Story, work: list[Shown], done: list[Shown]) -> list[str]:
    wrong = []
    found: dict[str, list[tuple[str, bool]]] = {}
    for mailbox, shown in ((WORK, work), (DONE, done)):
        for each in shown:
            found.setdefault(each.name, []).append((mailbox, each.flagged))
    for name, allowed in story.states.items():
        states = found.pop(name, [])
        if len(states) > 1:
            wrong.append(f"{name} is in {states}")
        elif (states[0] if states else None) not in allowed:
            wrong.append(f"{name} is in {states or 'no mailbox'}, promised was {allowed}")
    return wrong + [f"{name} was never appended, is in {states}" for name, states in found.items()]


def vanished(story: Story, there: dict[tuple[str, str], list[Shown]]) -> list[str]:
    """What was once shown to somebody and is nowhere, though nobody removed it."""
    names = {(who, each.name) for (who, _), shown in there.items() for each in shown}
    return [
        f"{name} was shown at {place} and is gone"
        for (who, place), name in story.seen.items()
        if place[0] == "INBOX" and (who, name) not in names
    ]
