"""What links a site to the others: who they are, and this site's secrets among them. Part of its configuration."""

from pathlib import Path

import msgspec

from cluster.control.roster import Member, Roster

REPLICAS = 3  # of the control plane: one on each member of the backbone
ROSTER_NAME = "members.json"  # the roster as this site last saw it, written by the running site


class ConfigRefused(Exception):
    """The configuration cannot be used; the text is one line that says where and what to do."""


class Secret(str):
    """A string that does not show itself in a repr, so that a logged struct gives nothing away."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(…)"


class BackboneConfig(msgspec.Struct, frozen=True):
    """What links the sites. `members`: the home of the directory first, addressed as this site reaches them. `roster`: what
    is agreed among them; None = they were listed by hand and share the passwords of routes and links. `client_password`
    is of this site's own member, `leaf_seed` the secret by which its log's engine links itself to others' members."""

    members: tuple[Member, ...]
    roster: Roster | None
    client_password: Secret
    route_password: Secret
    leaf_password: Secret
    leaf_seed: Secret

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(member.site for member in self.members if member.role == "site")

    @property
    def voters(self) -> tuple[str, ...]:
        """Who shall keep the control plane."""
        return self.roster.voters if self.roster is not None else self.sites

    @property
    def formed(self) -> tuple[str, ...]:
        """Who keeps it, and takes the sites' links."""
        return self.roster.formed if self.roster is not None else self.sites

    @property
    def replicas(self) -> int:
        return REPLICAS if len(self.formed) >= REPLICAS else 1

    def of(self, site: str) -> Member:
        return next(member for member in self.members if member.site == site)

    def clustered(self, site: str) -> bool:
        """Whether that site's member is one of several; else it keeps the control plane alone."""
        return len(self.formed) > 1 if site in self.formed else len(self.voters) > 1


def read_roster(path: Path) -> Roster | None:
    """None = there is none. Raises ConfigRefused."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Roster)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigRefused(f"{path} cannot be read: {error}: the running site writes it; delete it only on a site alone") from None
