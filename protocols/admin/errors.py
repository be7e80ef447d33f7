"""Refusal → problem details (RFC 9457). Total over all reasons: checked when this module is imported."""

import re
from enum import Enum
from http import HTTPStatus

import msgspec

from cluster.domain.refusal import Reason, Refusal
from protocols.admin.model import Problem

NAMES_SHOWN_MAX = 5

STATUS: dict[Reason, HTTPStatus] = {
    Reason.NO_SUCH_DOMAIN: HTTPStatus.NOT_FOUND,
    Reason.DOMAIN_EXISTS: HTTPStatus.CONFLICT,
    Reason.DOMAIN_IN_USE: HTTPStatus.CONFLICT,
    Reason.NO_SUCH_ADDRESS: HTTPStatus.NOT_FOUND,
    Reason.ADDRESS_TAKEN: HTTPStatus.CONFLICT,
    Reason.ADDRESS_INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
    Reason.NO_SUCH_ACCOUNT: HTTPStatus.NOT_FOUND,
    Reason.ACCOUNT_SUSPENDED: HTTPStatus.FORBIDDEN,
    Reason.MEMBERS_LOOP: HTTPStatus.CONFLICT,
    Reason.NO_SUCH_APP_PASSWORD: HTTPStatus.NOT_FOUND,
    Reason.WRONG_PASSWORD: HTTPStatus.UNAUTHORIZED,
    Reason.WEAK_PASSWORD: HTTPStatus.UNPROCESSABLE_ENTITY,
    Reason.THROTTLED: HTTPStatus.TOO_MANY_REQUESTS,
    Reason.NO_SUCH_MAILBOX: HTTPStatus.NOT_FOUND,
    Reason.MAILBOX_EXISTS: HTTPStatus.CONFLICT,
    Reason.MAILBOX_NAME_INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
    Reason.MAILBOX_PROTECTED: HTTPStatus.FORBIDDEN,
    Reason.SPECIAL_USE_INVALID: HTTPStatus.UNPROCESSABLE_ENTITY,
    Reason.MODIFIED: HTTPStatus.CONFLICT,
    Reason.NOT_PERMITTED: HTTPStatus.FORBIDDEN,
    Reason.TOO_BIG: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Reason.OVER_LIMIT: HTTPStatus.INSUFFICIENT_STORAGE,
    Reason.OVER_QUOTA: HTTPStatus.INSUFFICIENT_STORAGE,
    Reason.ABOVE_QUOTA: HTTPStatus.INSUFFICIENT_STORAGE,
    Reason.NO_SUCH_ENTRY: HTTPStatus.NOT_FOUND,
    Reason.CONFLICT: HTTPStatus.CONFLICT,
    Reason.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    # RFC 9110 §15.3.3: accepted, not yet acted on: durable in the log, and the tables follow.
    Reason.NOT_SHOWN_YET: HTTPStatus.ACCEPTED,
}


def total(table: dict[Reason, HTTPStatus]) -> None:
    """Raises RuntimeError where a reason has no status."""
    missing = set(Reason) - set(table)
    if missing:
        raise RuntimeError(f"no HTTP status for {sorted(reason.name for reason in missing)}")


total(STATUS)


class Fault(Enum):
    """What HTTP itself refuses, before the domain is asked."""

    MALFORMED = ("malformed", HTTPStatus.BAD_REQUEST)
    UNAUTHORIZED = ("unauthorized", HTTPStatus.UNAUTHORIZED)
    FORBIDDEN = ("not-permitted", HTTPStatus.FORBIDDEN)
    INSECURE = ("insecure", HTTPStatus.FORBIDDEN)
    NO_SUCH_ROUTE = ("no-such-route", HTTPStatus.NOT_FOUND)
    METHOD_NOT_ALLOWED = ("method-not-allowed", HTTPStatus.METHOD_NOT_ALLOWED)
    BODY_TOO_BIG = ("body-too-big", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    MEDIA_TYPE = ("media-type", HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
    INTERNAL = ("internal", HTTPStatus.INTERNAL_SERVER_ERROR)


TITLES: dict[str, str] = {
    Reason.NOT_SHOWN_YET.value: "Done, and not yet shown",
    Reason.UNAVAILABLE.value: "The site cannot do this now",
    Fault.INSECURE.value[0]: "Only over TLS",
    Fault.INTERNAL.value[0]: "The server failed",
}


def of_refusal(refusal: Refusal) -> Problem:
    word = refusal.reason.value
    text = refusal.text or f"{_sentence(word)}."
    # The domain's sentence says what is wrong; people must also see with what.
    unsaid = [name for name in refusal.detail[:NAMES_SHOWN_MAX] if name not in text]
    detail = f"{', '.join(unsaid)}: {text}" if unsaid else text
    return _problem(word, STATUS[refusal.reason], detail, names=refusal.detail)


def of_fault(fault: Fault, detail: str, field: str = "") -> Problem:
    word, status = fault.value
    return _problem(word, status, detail, field=field)


def of_invalid(error: msgspec.MsgspecError) -> Problem:
    """What msgspec says of a body or a query, with the name of the field that it is about."""
    text = str(error)
    unknown, missing = re.search(r"unknown field `([^`]+)`", text), re.search(r"missing required field `([^`]+)`", text)
    place = re.search(r" - at `\$\.?([^`]*)`$", text)
    named = [m.group(1) for m in (place, unknown or missing) if m and m.group(1)]
    return of_fault(Fault.MALFORMED, text, ".".join(named))


def _problem(word: str, status: HTTPStatus, detail: str, *, field: str = "", names: tuple[str, ...] = ()) -> Problem:
    # RFC 9457 §3.1.1: the type identifies the problem; it need not lead anywhere.
    kind = f"urn:angarium:problem:{word}"
    return Problem(kind, TITLES.get(word, _sentence(word)), int(status), detail, word, field, names)


def _sentence(word: str) -> str:
    return word.replace("-", " ").capitalize()
