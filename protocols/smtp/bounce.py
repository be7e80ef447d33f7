"""Delivery status notifications (RFC 3464, RFC 6533 where an address is not ASCII). Pure: values in, bytes out."""

import re

import msgspec

from cluster.formats.mime import format_date

HEADER_BYTES_MAX = 64 << 10  # of the original's header that are sent back
_STATUS = re.compile(r"([245])\.\d{1,3}\.\d{1,3}")  # RFC 3463 §2


class Failure(msgspec.Struct, frozen=True):
    """`code` 0 = no reply was got. `host`: who said it, empty = we. `expired`: tried long enough."""

    recipient: str
    code: int
    text: str
    host: str = ""
    expired: bool = False

    @property
    def status(self) -> str:
        """RFC 3463: what the reply said, or what its code means; always a permanent one (RFC 3464 §2.3.4)."""
        if self.expired:
            return "5.4.7"  # RFC 3463 §3.5: delivery time expired
        found = _STATUS.match(self.text)
        return "5" + found[0][1:] if found else "5.0.0"


class Report(msgspec.Struct, frozen=True):
    """`id`: makes the Message-ID and the boundary. `header`: the original's, cut to HEADER_BYTES_MAX. Times in unix
    seconds."""

    id: int
    hostname: str
    sender: str
    failures: tuple[Failure, ...]
    queued_at: int
    at: int
    header: bytes


def notification(report: Report) -> bytes:
    """The whole message. It has the null reverse-path, so that nothing answers it (RFC 3464 §2, RFC 5321 §4.5.5)."""
    boundary = f"={report.id:016x}="  # RFC 2045 §6.7: no encoding can make that
    utf8 = not (report.sender + "".join(one.recipient for one in report.failures)).isascii()
    parts = (
        _head(report, boundary),
        f"--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
        _explained(report),
        f"--{boundary}\r\nContent-Type: message/{'global-' if utf8 else ''}delivery-status\r\n",
        "Content-Transfer-Encoding: 8bit\r\n\r\n" if utf8 else "\r\n",
        _status(report, utf8),
        f"--{boundary}\r\n",
    )
    # RFC 6522 §4: the header only; RFC 6533 §5 where it is not ASCII.
    kind = "text/rfc822-headers" if report.header.isascii() else "message/global-headers"
    returned = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n".encode() + report.header
    # RFC 2046 §5.1.1: the CRLF before a boundary belongs to the boundary.
    returned += b"\r\n"
    return "".join(parts).encode() + returned + f"--{boundary}--\r\n".encode()


def _head(report: Report, boundary: str) -> str:
    fields = (
        f"Date: {format_date(report.at)}",
        f"From: Mail Delivery System <MAILER-DAEMON@{report.hostname}>",
        f"To: <{report.sender}>",
        "Subject: Your message could not be delivered",
        f"Message-ID: <{report.id:016x}@{report.hostname}>",
        "Auto-Submitted: auto-replied",  # RFC 3834 §5
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"',
        "Content-Transfer-Encoding: 8bit",
    )
    return "\r\n".join(fields) + "\r\n\r\n"


def _explained(report: Report) -> str:
    lines = ["Your message could not be delivered to:", ""]
    for one in report.failures:
        lines.append(f"  {one.recipient}")
        if one.expired:
            lines.append("  It was tried for days, the last time with this outcome:")
        lines += [f"  {_plain(one.host + ': ' if one.host else '')}{_said(one)}", ""]
    lines += ["Its header is attached.", ""]
    return "\r\n".join(lines) + "\r\n"


def _status(report: Report, utf8: bool) -> str:
    """RFC 3464 §2.1: one group for the message, one for each recipient, with an empty line between them."""
    groups = [
        f"Reporting-MTA: dns; {report.hostname}\r\nArrival-Date: {format_date(report.queued_at)}\r\n",
    ]
    for one in report.failures:
        kind = "utf-8" if utf8 and not one.recipient.isascii() else "rfc822"  # RFC 6533 §3
        group = f"Final-Recipient: {kind}; {one.recipient}\r\nAction: failed\r\nStatus: {one.status}\r\n"
        if one.host:
            group += f"Remote-MTA: dns; {_plain(one.host)}\r\n"
        if one.code:
            group += f"Diagnostic-Code: smtp; {_said(one, utf8)}\r\n"
        groups.append(group + f"Last-Attempt-Date: {format_date(report.at)}\r\n")
    return "\r\n".join(groups) + "\r\n"


def _said(one: Failure, utf8: bool = True) -> str:
    said = _plain(f"{one.code} {one.text}" if one.code else one.text)
    return said if utf8 else said.encode("ascii", "replace").decode("ascii")


def _plain(text: str) -> str:
    """No text of another host's may make a line of its own."""
    return "".join(char if char.isprintable() else " " for char in text)
