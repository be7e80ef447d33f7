"""Every limit that an operator may set, with its default. A name ends in its unit; bytes and seconds are whole."""

import msgspec

MIB = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[limits]` section of angarium.toml. All are upper bounds (`_max`) unless the name says otherwise."""

    message_bytes_max: int = 50 * MIB
    """One message, by SMTP DATA/BDAT or IMAP APPEND; announced by SIZE (RFC 1870) and APPENDLIMIT (RFC 7889)."""
    imap_line_bytes_max: int = 64 * 1024
    """A command line of IMAP without its literals; RFC 7162 §4 asks for at least 8,192."""
    imap_literal_bytes_max: int = 64 * 1024
    """A literal of any IMAP command but APPEND."""
    imap_idle_s_max: int = 1860
    """RFC 9051 §5.4: an autologout timer is at least 30 minutes once signed in."""
    pop3_idle_s_max: int = 600
    """RFC 1939 §3: an autologout timer is at least 10 minutes once signed in."""
    smtp_idle_s_max: int = 300
    """RFC 5321 §4.5.3.2.7: a server waits at least 5 minutes for the next command."""
    smtp_recipients_max: int = 1000
    """Recipients of one transaction; RFC 5321 §4.5.3.1.8 asks for at least 100."""
    smtp_hops_max: int = 100
    """Received lines from which on mail is a loop (RFC 5321 §6.3 asks for at least 100)."""
    connections_max: int = 20_000
    """Open client connections of one worker, all protocols together."""
    connections_address_max: int = 500
    """Open client connections of one address at one worker."""
    bad_requests_max: int = 20
    """Requests that were not of the language, in one session, before goodbye."""
    sign_in_s_max: int = 120
    """From connecting to being signed in, where signing in is required."""
    sign_in_failures_max: int = 10
    """Failed sign-ins of one address or account within `sign_in_window_s` before it must wait."""
    sign_in_window_s: int = 300
    """How long a failed sign-in is remembered."""
    outbox_age_s_max: int = 5 * 86400
    """How long mail to another host is tried (RFC 5321 §4.5.4.1 asks for at least 4–5 days)."""
    drain_s_max: int = 20
    """How long a worker may take to finish its sessions after SIGTERM before it is killed."""
