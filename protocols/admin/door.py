"""What a handler is given: the door it stands in, and the call it answers."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import msgspec

from cluster.domain.actor import Actor
from cluster.domain.directory.commands import AnyCommand as DirectoryCommand
from cluster.domain.directory.events import Verifier
from cluster.domain.mailbox.commands import AnyCommand as MailboxCommand
from cluster.domain.refusal import Refusal
from cluster.offers import Offer
from protocols.admin.joining import Joining
from protocols.admin.moving import Moving
from protocols.admin.port import Administration, Cluster, Mending
from protocols.port import Account, Done, World


class Directory(Protocol):
    """What of `Site` (protocols/port.py) this language uses."""

    @property
    def world(self) -> World: ...

    async def execute(self, actor: Actor, command: DirectoryCommand | MailboxCommand) -> Done | Refusal: ...

    async def sign_in(self, address: str, password: str, actor: Actor) -> Account | Refusal: ...

    async def sign_in_by_token(self, address: str, token: str, actor: Actor) -> Account | Refusal: ...


class Passwords(Protocol):
    """Makes what is kept of a password (storage/credentials.py). Both raise CredentialsBusy."""

    async def make(self, password: str) -> Verifier: ...

    async def make_generated(self, password: str) -> Verifier: ...

    def weakness(self, password: str, address: str) -> Refusal | None: ...

    def generate(self) -> str: ...


Offers = Callable[[], tuple[Offer, ...]]


def _nobody() -> tuple[Offer, ...]:
    return ()


class Door(NamedTuple):
    """`cluster`, `mending` None: there is no control plane behind this door. `offers`: where clients reach the sites now."""

    site: Directory
    administration: Administration
    passwords: Passwords
    cluster: Cluster | None = None
    offers: Offers = _nobody
    joining: Joining | None = None
    mending: Mending | None = None
    moving: Moving | None = None


class Call(NamedTuple):
    """`path`: its variables. `query` and `body`: as the route's types say (None where it has none; str for CSV, an
    iterator of bytes where messages come in)."""

    actor: Actor
    path: dict[str, str]
    query: Any
    body: Any


Answer = msgspec.Struct | Refusal | None
