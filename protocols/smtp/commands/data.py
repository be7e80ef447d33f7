"""DATA (RFC 5321 §4.1.1.4) and BDAT (RFC 3030 §2)."""

import structlog

from protocols.smtp import paths
from protocols.smtp.accept import accept
from protocols.smtp.content import Incoming
from protocols.smtp.errors import OUR_FAULT
from protocols.smtp.model import Piece, Reply, Role
from protocols.smtp.state import Conversation, Transaction, out_of_turn

GO_ON = Reply(354, "", ("Send the message, end with <CRLF>.<CRLF>",))

log = structlog.get_logger()


async def data(talk: Conversation, argument: bytes) -> Reply | list[Reply]:
    if argument:
        return Reply(501, "5.5.4", ("DATA has no argument",))
    transaction = talk.transaction
    assert transaction is not None
    transaction.incoming = incoming = Incoming(talk.site, talk.settings.message_bytes_max)
    talk.wire.parser.expect_data()
    talk.wire.send(GO_ON)
    await _take_all(talk, incoming)
    return await _ended(talk, transaction, incoming)


async def bdat(talk: Conversation, argument: bytes) -> Reply | list[Reply]:
    size, last = paths.chunk(argument)
    transaction = talk.transaction
    first = transaction is None or transaction.incoming is None
    talk.wire.parser.expect_chunk(size, first, last)
    refusal = out_of_turn(talk, "BDAT")
    if refusal is not None or transaction is None:
        await _take_all(talk, None)  # RFC 3030 §4.2: the octets come, whatever we think of them
        assert refusal is not None
        return refusal
    if transaction.incoming is None:
        transaction.incoming, transaction.chunked = Incoming(talk.site, talk.settings.message_bytes_max), True
    incoming = transaction.incoming
    await _take_all(talk, incoming)
    if not last:
        # RFC 3030 §2: a chunk that fails ends the transaction; what comes after it is refused.
        refusal = incoming.refusal
        if refusal is not None:
            talk.reset()
        return refusal or Reply(250, "2.0.0", (f"{size} octets received",))
    return await _ended(talk, transaction, incoming)


async def _ended(talk: Conversation, transaction: Transaction, incoming: Incoming) -> list[Reply]:
    try:
        return await accept(talk, transaction, incoming)
    except Exception:
        # Ours: the peer hears only that we failed, as often as it waits for a reply, and keeps the message.
        log.exception("smtp.accept_failed", session=talk.session, peer=talk.peer, transaction=f"{transaction.id:x}")
        return [OUR_FAULT] * (len(transaction.recipients) if talk.role is Role.LMTP else 1)
    finally:
        talk.reset()  # RFC 5321 §4.1.1.4: the buffers are cleared, whatever became of it


async def _take_all(talk: Conversation, incoming: Incoming | None) -> None:
    """All pieces of this DATA or chunk; thrown away where there is nothing to keep them in."""
    settings = talk.settings
    while True:
        piece = await talk.wire.next(settings.data_s_max, settings.write_s_max)
        assert isinstance(piece, Piece)
        if incoming is not None:
            await incoming.take(piece)
        if piece.last:
            return
