"""What mbsync (isync) is told to keep the same, whatever the account: all mailboxes of it and a Maildir, both ways."""

ACCOUNT = """\
IMAPAccount site
Host localhost
Port {port}
User {user}
Pass "{password}"
SSLType IMAPS
CertificateFile {ca}
"""

ALL_BOTH_WAYS = """\
IMAPStore far
Account site

MaildirStore near
Path {near}/
Inbox {near}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Remove Both
Expunge Both
SyncState *
"""


def configuration(account: str) -> str:
    """A whole configuration; `account` is its IMAPAccount, named `site`. To be formatted with `near`, the Maildir."""
    return f"{account}\n{ALL_BOTH_WAYS}"
