"""The relay and other sites' queues: who is not here, who sends for us, who cannot be reached and who is back. And what a
sender hears meanwhile."""

import asyncio

import pytest

from cluster.domain.actor import Actor
from cluster.domain.outbox import handing
from cluster.domain.outbox.commands import QueueMessage
from cluster.domain.refusal import Reason, Refusal
from node.relay import STILL_AWAY_S_MAX, STILL_AWAY_S_MIN, Returned
from protocols.port import Recipient
from protocols.smtp.errors import waits_for
from protocols.smtp.model import Role
from protocols.smtp.relay import Relay, RelaySettings
from tests.contracts.smtp_site import Memo
from tests.contracts.test_relay import MESSAGE, Case, Host, smarthost
from tests.contracts.test_smtp_server import Line, serving

AWAY = Refusal(Reason.UNAVAILABLE, "", ("queue-south",))
SHORT = b"Subject: hi\r\n\r\nhello\r\n.\r\n"


def outcomes(case: Case) -> dict[str, tuple[str, str]]:
    return {one.recipient: (one.outcome, one.text) for record in case.site.recorded for one in record.attempts}


async def test_who_is_not_here_goes_to_the_queue_of_the_home_and_is_waited_for_no_more() -> None:
    case = Case(None)
    case.site.away[2] = ("south", "west")
    await case.queue("Bob@example.org", "alice@example.org")
    assert await case.relay.once() and not await case.relay.once()
    assert [*case.site.handed] == ["queue-south"] and [*case.site.handed["queue-south"].values()] == [
        ("Bob@example.org",)
    ]
    assert case.told().endswith(MESSAGE) and not case.site.outbox.messages
    assert outcomes(case)["Bob@example.org"] == ("sent", "2.0.0 Handed to queue-south")


async def test_a_crash_between_the_two_appends_hands_it_over_once() -> None:
    case = Case(None)
    case.site.away[2] = ("south",)
    await case.queue("bob@example.org")
    case.site.refuse_record = Refusal(Reason.UNAVAILABLE)
    await case.relay.once()
    case.site.refuse_record = None
    again = Relay(case.site.port, case.site, RelaySettings(hostname="h"), lambda: True, case._wait)
    await again.once()
    assert len(case.site.handed["queue-south"]) == 1 and not case.site.outbox.messages


async def test_a_group_over_several_sites_becomes_each_for_himself() -> None:
    """Else those who have it would be given it again as long as others wait, also when the log has forgotten that they do."""
    case = Case(None)
    case.site.aliases["team@example.org"] = Recipient("team@example.org", (1, 2))
    case.site.away[2] = ("south",)
    await case.queue("team@example.org")
    await case.relay.once()
    assert [*case.site.handed["queue-north"].values()] == [("alice@example.org", "bob@example.org")]
    assert not case.site.delivered and not case.site.outbox.messages


async def test_of_a_group_here_who_lacks_it_is_queued_for_himself() -> None:
    case = Case(None)
    case.site.aliases["team@example.org"] = Recipient("team@example.org", (1, 2))
    case.site.refuse[2] = Refusal(Reason.UNAVAILABLE, "", ("mail-north-2",))
    await case.queue("team@example.org")
    await case.relay.once()
    assert [account for account, _ in case.site.delivered] == [1] and not case.site.outbox.messages
    assert [*case.site.handed["queue-north"].values()] == [("bob@example.org",)]


async def test_what_waits_for_a_site_is_tried_as_soon_as_it_is_back() -> None:
    case = Case(None)
    case.site.away[2], case.site.refuse_handed["queue-south"] = ("south",), AWAY
    for id in (77, 78, 79):
        await case.queue("bob@example.org", id=id)
    await case.relay.once()
    assert set(outcomes(case).values()) == {("deferred", waits_for("queue-south"))}
    tries = len(case.site.recorded)
    assert not await case.relay.once() and len(case.site.recorded) == tries, "not before its time"
    case.site.back = ["queue-south", "mail-west-1"]
    await case.relay.once()
    assert len(case.site.recorded) == tries + 1 and case.site.away_still == ["queue-south"], "one is enough to tell"
    case.site.refuse_handed.clear()
    case.site.back = ["queue-south"]
    await case.relay.once()
    assert len(case.site.handed["queue-south"]) == 3 and not case.site.outbox.messages


async def test_people_here_whose_partition_nobody_leads_are_waited_for_in_the_same_way() -> None:
    case = Case(None)
    case.site.refuse[2] = Refusal(Reason.UNAVAILABLE, "", ("mail-north-1",))
    await case.queue("bob@example.org")
    await case.relay.once()
    assert outcomes(case) == {"bob@example.org": ("deferred", waits_for("mail-north-1"))}
    case.site.refuse.clear()
    case.site.back = ["mail-north-1"]
    await case.relay.once()
    assert len(case.site.delivered) == 1 and not case.site.outbox.messages


async def test_mail_for_elsewhere_leaves_by_another_site() -> None:
    host = Host()
    async with smarthost(host) as where:
        case = Case(where)
        settings = RelaySettings("h", where, through="queue-cloud")
        case.relay = Relay(case.site.port, case.site, settings, lambda: True, case._wait)
        await case.queue("x@other.example", "y@other.example", "alice@example.org")
        await case.relay.once()
    assert [*case.site.handed["queue-cloud"].values()] == [("x@other.example", "y@other.example")]
    assert not host.taken and len(case.site.delivered) == 1 and not case.site.outbox.messages


async def test_while_that_site_is_away_it_waits_here_and_not_longer_than_it_may() -> None:
    case = Case(None)
    settings = RelaySettings("h", through="queue-cloud")
    case.relay = Relay(case.site.port, case.site, settings, lambda: True, case._wait)
    case.site.refuse_handed["queue-cloud"] = Refusal(Reason.UNAVAILABLE, "", ("queue-cloud",))
    await case.queue("x@other.example")
    for _ in range(200):
        await case.relay.once()
        if not case.site.outbox.messages:
            break
        case.site.world.at = next(iter(case.site.outbox.messages.values())).next_at
    assert outcomes(case) == {"x@other.example": ("expired", waits_for("queue-cloud"))}
    assert b"Status: 5.4.7\r\n" in case.told()


async def test_whoever_sends_for_that_site_while_it_is_lost_does_not_hand_it_to_itself() -> None:
    case = Case(None)
    settings = RelaySettings("h", through="queue-north")
    case.relay = Relay(case.site.port, case.site, settings, lambda: True, case._wait)
    memo = Memo(MESSAGE)
    handed_on = QueueMessage(5, "alice@example.org", ("x@other.example",), memo.content, handed=1)
    await case.site.queue(Actor(name="test"), handed_on, [memo])
    await case.relay.once()
    assert not case.site.handed and outcomes(case)["x@other.example"][0] == "deferred"


async def test_sites_that_hand_it_on_in_a_circle_end_it() -> None:
    case = Case(None)
    case.site.away[2] = ("south",)
    memo = Memo(MESSAGE)
    round_and_round = QueueMessage(
        5, "alice@example.org", ("bob@example.org",), memo.content, handed=handing.HANDED_MAX
    )
    await case.site.queue(Actor(name="test"), round_and_round, [memo])
    await case.relay.once()
    assert not case.site.handed and outcomes(case)["bob@example.org"][0] == "failed"
    assert b"Status: 5.4.6\r\n" in case.told(), "its sender hears of it"


async def test_a_sender_whose_mail_is_at_another_site_is_told_by_the_queue() -> None:
    case = Case(None)
    case.site.refuse[1] = Refusal(Reason.UNAVAILABLE, "", ("south",))
    await case.queue("gone@example.org")
    await case.relay.once()
    command, data = case.site.queued[-1]
    assert (command.sender, command.recipients) == ("", ("alice@example.org",)) and not case.site.delivered
    assert (
        b"Final-Recipient: rfc822; gone@example.org\r\n" in data and outcomes(case)["gone@example.org"][0] == "failed"
    )


@pytest.mark.parametrize(
    ("refusal", "answer", "queued"),
    [
        (Refusal(Reason.UNAVAILABLE, "", ("mail-south-1",)), "250", ("bob@example.org",)),
        (Refusal(Reason.UNAVAILABLE), "451", None),
        (Refusal(Reason.OVER_LIMIT, "", ("bob",)), "452", None),
    ],
)
@pytest.mark.parametrize("role", [Role.MX, Role.LMTP])
async def test_what_a_sender_hears(role: Role, refusal: Refusal, answer: str, queued: tuple[str, ...] | None) -> None:
    case = Case(None)
    case.site.refuse[2] = refusal
    async with serving(case.site, role) as server:
        line = Line(*await asyncio.open_connection("127.0.0.1", server.port))
        await line.hear()
        hello = b"LHLO c\r\n" if role is Role.LMTP else b"EHLO c\r\n"
        for words in (hello, b"MAIL FROM:<x@y.example>\r\n", b"RCPT TO:<bob@example.org>\r\n", b"DATA\r\n"):
            await line.say(words)
            await line.hear()
        await line.say(SHORT)
        assert (await line.hear())[:3] == answer
    assert [command.recipients for command, _ in case.site.queued] == ([queued] if queued else [])


def test_who_was_said_to_be_back_and_is_not_is_believed_less_often() -> None:
    there, now = {"a", "b"}, [0.0]
    returned = Returned(lambda name: name in there, lambda: now[0])
    names = ["a", "b", "c"]
    assert returned.look(names) and returned.take() == ["a", "b"] and not returned.look(names)
    there.discard("b")
    returned.look(names)
    there.add("b")
    assert returned.look(names) and returned.take() == ["b"]
    waits = []
    for _ in range(9):
        returned.still_away("a")
        since = now[0]
        while not returned.look(names):
            now[0] += 1.0
        waits.append(now[0] - since)
        assert returned.take() == ["a"]
    assert waits[0] == STILL_AWAY_S_MIN and waits[-1] == STILL_AWAY_S_MAX and waits == sorted(waits)
    now[0] += 2 * STILL_AWAY_S_MAX
    returned.still_away("a")
    now[0] += STILL_AWAY_S_MIN
    assert returned.look(names), "that was another time"
