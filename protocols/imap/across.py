"""COPY and MOVE (RFC 9051 §6.4.7, §6.4.8) where the target is another's, or not all flags may be set there: the messages are
brought there as by APPEND, with what is known of them and none of their bytes."""

from collections.abc import Iterator, Sequence

import msgspec

from cluster.domain.mailbox import ranges
from cluster.domain.mailbox.commands import AppendMessage, Expunge, NewMessage
from cluster.domain.mailbox.decide import MESSAGES_PER_APPEND_MAX
from cluster.domain.refusal import Reason, Refusal
from protocols.imap.state import Talk
from protocols.imap.view import Spans, View
from protocols.port import Done, Message, Named

DESCRIPTIONS_BYTES_MAX = 512 * 1024  # of one append, well below what the log takes at once


async def bring(talk: Talk, spans: Spans, target: Named, *, moving: bool) -> Done | Refusal:
    """A copy is all or nothing, so it has a limit; a move goes on piece by piece, each there before it goes here."""
    view = talk.mailbox()
    uids = [uid for uid in view.uids_of(spans)]
    rows = await _rows(talk, view, uids)
    if isinstance(rows, Refusal):
        return rows
    shares = list(_shares(rows))
    if len(shares) > 1 and not moving:
        return Refusal(
            Reason.OVER_LIMIT, f"At most {MESSAGES_PER_APPEND_MAX} messages can be copied into another's mailbox at once."
        )
    whole = Done(0)
    for share in shares:
        done = await _share(talk, view, share, target, moving=moving)
        if isinstance(done, Refusal):
            return done
        sources = tuple(row.uid for row in share)
        whole = Done(done.position, done.uidvalidity, (*whole.uids, *done.uids), (*whole.sources, *sources))
    return whole


async def _share(
    talk: Talk, view: View, share: Sequence[Message], target: Named, *, moving: bool
) -> Done | Refusal:
    messages = []
    for row in share:
        assert row.content is not None, "they were asked for with their contents"
        content = msgspec.structs.replace(row.content, description=row.description)
        messages.append(NewMessage(content, row.internal_at, row.internal_zone, row.flags, row.keywords))
    done = await talk.site.execute(talk.actor, AppendMessage(target.account, target.name, tuple(messages)))
    if isinstance(done, Refusal) or not moving:
        return done
    # RFC 6851 §3.3: never is one lost; where this fails it is in both
    gone = Expunge(view.account, view.mailbox, ranges.compress(row.uid for row in share), only_deleted=False)
    went = await talk.site.execute(talk.actor, gone)
    return went if isinstance(went, Refusal) else done


async def _rows(talk: Talk, view: View, uids: Sequence[int]) -> list[Message] | Refusal:
    """Those that are there now. Raises SiteUnavailable."""
    wanted = ranges.compress(uids)
    there = await talk.site.flags(view.account, view.mailbox, wanted, reader=view.reader)
    if isinstance(there, Refusal):
        return there
    present = {row.uid for row in there}
    found: list[Message] = []
    answer = talk.site.messages(
        view.account, view.mailbox, wanted, described=True, contents=True, reader=view.reader
    )
    async for batch in answer:
        found.extend(row for row in batch if row.uid in present)
    return found


def _shares(rows: Sequence[Message]) -> Iterator[list[Message]]:
    share: list[Message] = []
    room = DESCRIPTIONS_BYTES_MAX
    for row in rows:
        if share and (len(share) == MESSAGES_PER_APPEND_MAX or len(row.description) > room):
            yield share
            share, room = [], DESCRIPTIONS_BYTES_MAX
        share.append(row)
        room -= len(row.description)
    if share:
        yield share
