"""What the worker decides for its IMAP sessions."""

import ipaddress
import ssl
from collections.abc import Callable

import msgspec

from protocols.carrying import CARRY_S_MAX, REACH_S_MAX, Sites, site_of
from protocols.imap.parser import Limits

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def no_tls() -> "ssl.SSLContext | None":
    return None


def no_end_point() -> bytes:
    return b""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`tls`: the context of the moment, so that certificates can be renewed; None = STARTTLS is not offered. `end_point`: the
    hash of its certificate (RFC 5929 §4.1), empty = SCRAM is not bound to it. `plaintext_networks`: peers that may sign in
    without TLS, unthrottled. `sites`: None = there is no other."""

    hostname: str = "localhost"
    node: str = ""
    message_bytes_max: int = 50 * 1024 * 1024
    plaintext_networks: tuple[Network, ...] = ()
    tls: Callable[[], "ssl.SSLContext | None"] = no_tls
    end_point: Callable[[], bytes] = no_end_point
    limits: Limits = Limits()
    sites: Sites | None = None
    bad_commands_max: int = 20
    sign_in_tries_max: int = 5
    sign_in_s_max: int = 120
    idle_s_max: int = 1860  # RFC 9051 §5.4: an autologout timer is at least 30 minutes once signed in
    still_here_s: float = 240  # in IDLE, so that routers between us keep the connection in mind
    unauthenticate: bool = True  # RFC 8437 §8: it can be switched off
    compress: bool = True
    progress_every_s: float = 10  # RFC 9585: what takes longer says how far it is
    handshake_s_max: int = 30
    write_s_max: int = 300  # a client that takes nothing of a reply for so long is gone
    notify_mailboxes_max: int = 10_000  # RFC 5465 §5.8: watched by one session
    notify_owners_max: int = 100  # whose mailboxes these are
    connections_max: int = 10_000
    reach_s_max: float = REACH_S_MAX
    carry_s_max: float = CARRY_S_MAX

    def site_of(self, certificate: bytes) -> str:
        """Which of the organisation's sites has shown this certificate; empty = none of them."""
        return site_of(self.sites, certificate)

    def allows_plaintext(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self.plaintext_networks if network.version == address.version)
