"""RCPT (RFC 5321 §4.1.1.3): who is here, and who may be written to from here. Nobody relays through port 25."""

from cluster.domain.refusal import Refusal
from protocols.port import Recipient
from protocols.smtp import paths
from protocols.smtp.commands.mail import NEEDS_SMTPUTF8
from protocols.smtp.errors import refused
from protocols.smtp.model import Reply
from protocols.smtp.state import Accepted, Conversation

NO_RELAY = Reply(550, "5.7.1", ("We do not relay",))
NO_ROUTE = Reply(550, "5.4.4", ("No route: no smarthost is configured",))
TOO_MANY = Reply(452, "4.5.3", ("Too many recipients; send the rest in another transaction",))
NOBODY = Reply(550, "5.1.1", ("No such address here",))


async def rcpt(talk: Conversation, argument: bytes) -> Reply:
    path, parameters = paths.forward_path(argument)
    transaction = talk.transaction
    assert transaction is not None
    for name in parameters:
        return Reply(555, "5.5.4", (f"{name} is not supported",))  # RFC 5321 §4.1.1.11
    if not path.ascii and not transaction.smtputf8:
        return NEEDS_SMTPUTF8
    if len(transaction.recipients) >= talk.settings.recipients_max:
        return TOO_MANY  # RFC 5321 §4.5.3.1.10
    if not path.domain:  # RFC 5321 §4.5.1: <Postmaster> is always known
        address = talk.settings.postmaster or f"postmaster@{talk.settings.hostname}"
    else:
        address = paths.written_address(path)
    recipient = await talk.site.resolve(address)
    if isinstance(recipient, Refusal):
        return refused(recipient)
    if not recipient.local_domain:
        if talk.account is None:
            return NO_RELAY
        recipient = Recipient(address, (), recipient.elsewhere or (address,), local_domain=False)
    if not recipient.accounts and not recipient.elsewhere:
        return NOBODY
    if not recipient.accounts and not talk.settings.routes_elsewhere:
        return NO_ROUTE  # so that nobody waits in vain
    if recipient.accounts and not recipient.elsewhere:
        # RFC 5321 §4.2.1, RFC 3463 §3.3: before the message is sent, where it is known now. RFC 1870 §6.1: its size too.
        full = await talk.site.room(recipient.accounts, transaction.size)
        if full is not None:
            return refused(full)
    transaction.recipients.append(Accepted(address, recipient))
    return Reply(250, "2.1.5", ("Recipient accepted",))
