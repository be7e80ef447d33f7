"""How a site joins: a token for it is made, and it comes through the one door that asks for no administrator, with the
token's secret. The door is behind TLS under the organisation's own authority, whose fingerprint the token holds.
"""

from typing import Annotated, Literal, Protocol

from msgspec import Meta, Struct

from cluster.control.roster import Roster
from cluster.domain.actor import Actor
from cluster.domain.refusal import Reason, Refusal
from protocols.admin.model import Asked, SiteName

EXPIRES_S_MAX = 30 * 86_400.0
PORT_BASE_MAX = 65_535 - 7_422
NO_JOINING = Refusal(Reason.UNAVAILABLE, "This site was made to stay alone (`angarium init --alone`): nobody can join it.")

Pem = Annotated[str, Meta(max_length=8192)]
Host = Annotated[str, Meta(min_length=1, max_length=255)]
PortBase = Annotated[int, Meta(ge=0, le=PORT_BASE_MAX)]


class NewToken(Asked, frozen=True):
    """`site` empty: whoever has it chooses the name. `host`: where the new site reaches this one; empty = as in the roster.
    `renew`: for a site that is there, whose certificates are to be issued anew."""

    site: Annotated[str, Meta(max_length=63)] = ""
    host: Annotated[str, Meta(max_length=255)] = ""
    expires_s: Annotated[float, Meta(gt=0, le=EXPIRES_S_MAX)] = 86_400.0
    renew: bool = False


class TokenGiven(Struct, frozen=True):
    """`token` is shown only now. `expires_at`: unix seconds. `note`: what may hinder, empty = nothing known."""

    token: str
    expires_at: float
    note: str = ""


class Hello(Struct, frozen=True):
    """What whoever comes must know before it trusts the door. `clock`: unix seconds."""

    ca: str
    version: str
    clock: float
    domain: str
    host: str
    leaf_port: int


class Join(Asked, frozen=True):
    """`link_request`, `server_request`: PKCS #10 as PEM. `leaf_key`: an nkey. `clock`: unix seconds. `renew`: the site is one
    already, and asks for certificates with the key of its links that is known here."""

    id: Annotated[str, Meta(max_length=64)]
    secret: Annotated[str, Meta(max_length=128)]
    site: SiteName
    host: Host
    port_base: PortBase
    hostname: Host
    link_request: Pem
    server_request: Pem
    leaf_key: Annotated[str, Meta(max_length=64)]
    version: Annotated[str, Meta(max_length=64)]
    clock: float
    role: Literal["site", "witness"] = "site"
    renew: bool = False


class Joined(Struct, frozen=True):
    """`hmac_key`: the same at every site; empty for a witness."""

    link_certificate: str
    server_certificate: str
    ca: str
    roster: Roster
    domain: str
    hmac_key: str


class Revoked(Struct, frozen=True):
    site: str
    members: tuple[str, ...]


class Joining(Protocol):
    """Who lets sites in and shuts them out."""

    async def token(self, actor: Actor, wanted: NewToken) -> TokenGiven | Refusal: ...

    async def hello(self) -> Hello | Refusal: ...

    async def join(self, actor: Actor, asked: Join) -> Joined | Refusal: ...

    async def revoke(self, actor: Actor, site: str) -> Revoked | Refusal: ...
