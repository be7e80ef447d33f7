"""MAIL (RFC 5321 §4.1.1.2) with SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), AUTH (RFC 4954 §5)."""

from cluster.domain.refusal import Refusal
from protocols.smtp import paths
from protocols.smtp.content import TOO_BIG
from protocols.smtp.errors import refused
from protocols.smtp.model import Path, Reply
from protocols.smtp.paths import Parameters
from protocols.smtp.state import Conversation, Transaction

SIZE_DIGITS_MAX = 20
NOT_OURS = Reply(553, "5.7.1", ("You may not send as that address",))
# RFC 6531 §3.5: 553 5.6.7 where an address is not ASCII and SMTPUTF8 was not asked for.
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", ("The address is not ASCII: say SMTPUTF8 after MAIL",))


async def mail(talk: Conversation, argument: bytes) -> Reply:
    sender, parameters = paths.reverse_path(argument)
    refusal = _parameters_refused(talk, parameters)
    if refusal is not None:
        return refusal
    smtputf8 = "SMTPUTF8" in parameters
    if not sender.ascii and not smtputf8:
        return NEEDS_SMTPUTF8
    refusal = await _sender_refused(talk, sender)
    if refusal is not None:
        return refusal
    talk.transaction = Transaction(talk.site.world.new_id(), sender, smtputf8, int(parameters.get("SIZE") or 0))
    return Reply(250, "2.1.0", ("Sender accepted",))


def _parameters_refused(talk: Conversation, parameters: Parameters) -> Reply | None:
    for name, value in parameters.items():
        if not talk.extended:
            return Reply(555, "5.5.4", ("Parameters need EHLO",))
        if name == "SIZE":
            if value is None or not value.isdecimal() or len(value) > SIZE_DIGITS_MAX:
                return Reply(501, "5.5.4", ("SIZE is a number",))
            if int(value) > talk.settings.message_bytes_max:
                return TOO_BIG  # RFC 1870 §6.1
        elif name == "BODY":
            if value is None or value.upper() not in ("7BIT", "8BITMIME"):
                return Reply(555, "5.5.4", ("BODY is 7BIT or 8BITMIME",))
        elif name == "SMTPUTF8":
            if value is not None:
                return Reply(501, "5.5.4", ("SMTPUTF8 has no value",))
        elif name == "AUTH" and talk.role.signs_in:
            if value is None:
                return Reply(501, "5.5.4", ("AUTH names a mailbox or <>",))
            # RFC 4954 §5: what it claims is not passed on by us, who trust our own sign-in only.
        else:
            return Reply(555, "5.5.4", (f"{name} is not supported",))  # RFC 5321 §4.1.1.11
    return None


async def _sender_refused(talk: Conversation, sender: Path) -> Reply | None:
    if talk.account is None:
        return None
    if sender.null:  # RFC 8098 §3: people's notifications of a message's fate have no return path
        return None
    allowed = await talk.site.may_send_as(talk.account, paths.written_address(sender))
    if isinstance(allowed, Refusal):
        return refused(allowed)
    return None if allowed else NOT_OURS
