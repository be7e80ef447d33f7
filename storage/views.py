"""The tables, as commands read them."""

from storage.postgres.directory_view import DirectoryView
from storage.postgres.expunged_view import ExpungedView
from storage.postgres.mail_view import MailView
from storage.postgres.outbox_view import OutboxView
from storage.postgres.shared_view import SharedView
from storage.quotas import Accounts


class Views:
    def __init__(self, mail: MailView, directory: DirectoryView, outbox: OutboxView, accounts: Accounts) -> None:
        self.mail = mail
        self.shared = SharedView(mail.database)
        self.expunged = ExpungedView(mail.database)
        self.directory = directory
        self.outbox = outbox
        self.accounts = accounts
