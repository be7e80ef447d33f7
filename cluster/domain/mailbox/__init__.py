"""The noun mailbox: an account's tree of mailboxes and the messages in them.

commands → decide → events → state. One entity is one account's mail: its id is the account's id.
"""
