"""Who does it and from where. Goes into every event's envelope: the log is the audit trail."""

import msgspec


class Actor(msgspec.Struct, frozen=True, omit_defaults=True):
    """`account` 0 = nobody signed in (mail from outside) or the system itself (`name` says which)."""

    name: str
    account: int = 0
    administrator: bool = False
    site: str = ""
    node: str = ""
    protocol: str = ""
    address: str = ""
    session: str = ""


SYSTEM = Actor(name="system")
