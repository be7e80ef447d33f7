"""Refusal → HTTP status, and Outlook's error codes. Total over all reasons: what is not about a domain cannot come from
the port, and is our failure.
"""

from collections.abc import Mapping
from enum import IntEnum
from http import HTTPStatus

from cluster.domain.refusal import Reason


class OutlookError(IntEnum):
    """[MS-OXDSCLI]: of the element ErrorCode."""

    NO_SUCH_ADDRESS = 500
    INVALID_REQUEST = 600
    NO_SUCH_SCHEMA = 601
    SERVER = 603


_SAID: Mapping[Reason, tuple[HTTPStatus, OutlookError]] = {
    # A status other than 200 sends a program to the next place that it knows of.
    Reason.NO_SUCH_DOMAIN: (HTTPStatus.NOT_FOUND, OutlookError.NO_SUCH_ADDRESS),
    Reason.ADDRESS_INVALID: (HTTPStatus.NOT_FOUND, OutlookError.NO_SUCH_ADDRESS),
    Reason.UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, OutlookError.SERVER),
}
SAID: Mapping[Reason, tuple[HTTPStatus, OutlookError]] = {
    reason: _SAID.get(reason, (HTTPStatus.INTERNAL_SERVER_ERROR, OutlookError.SERVER)) for reason in Reason
}
