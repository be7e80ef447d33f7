"""Arguments of RFC 1939: numbers of messages, and how many lines."""

import re

from protocols.pop3.maildrop import Maildrop
from protocols.pop3.model import Reply, SyntaxRefused

_NUMBER = re.compile(rb"[0-9]{1,10}")

NO_SUCH_MESSAGE = Reply(False, "There is no such message.")
GONE = Reply(False, "The message was deleted by another session.")


def numbers(argument: bytes, count: int) -> list[int]:
    """So many of them. Raises SyntaxRefused."""
    found = argument.split(b" ")
    if len(found) != count or not all(_NUMBER.fullmatch(one) for one in found):
        raise SyntaxRefused("A number is wanted." if count == 1 else f"{count} numbers are wanted.")
    return [int(one) for one in found]


def message_number(drop: Maildrop, argument: bytes) -> int | Reply:
    """Of a message that is there and not marked as deleted. Raises SyntaxRefused."""
    (number,) = numbers(argument, 1)
    return number if drop.has(number) else NO_SUCH_MESSAGE


def nothing(argument: bytes) -> None:
    """Raises SyntaxRefused where a word that takes no argument has one."""
    if argument.strip():
        raise SyntaxRefused("This command has no argument.")
