"""What the operator says about SMTP. Defaults are the standard's."""

import ipaddress

import msgspec

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MESSAGE_BYTES_MAX = 50 << 20
RECIPIENTS_MAX = 1000  # RFC 5321 §4.5.3.1.8: at least 100
HOPS_MAX = 100  # RFC 5321 §6.3: normally at least 100
BAD_COMMANDS_MAX = 20
AUTH_TRIES_MAX = 3
CONNECTIONS_MAX = 1000
CONNECTIONS_PER_PEER_MAX = 128
COMMAND_S_MAX = 300.0  # RFC 5321 §4.5.3.2.7
DATA_S_MAX = 600.0  # RFC 5321 §4.5.3.2.6, between two pieces of a message
SIGN_IN_S_MAX = 120.0  # from connecting to being signed in, where that is asked for
HANDSHAKE_S_MAX = 30.0
WRITE_S_MAX = 60.0
GRACE_S_MAX = 20.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`hostname`: what the greeting and the trace fields say. `postmaster`: where `<Postmaster>` leads, empty =
    postmaster@hostname. `routes_elsewhere`: a smarthost is configured. `plaintext_networks`: peers that may sign in
    without TLS, are not throttled and not counted per peer."""

    hostname: str
    postmaster: str = ""
    routes_elsewhere: bool = False
    plaintext_networks: tuple[Network, ...] = ()
    message_bytes_max: int = MESSAGE_BYTES_MAX
    recipients_max: int = RECIPIENTS_MAX
    hops_max: int = HOPS_MAX
    bad_commands_max: int = BAD_COMMANDS_MAX
    auth_tries_max: int = AUTH_TRIES_MAX
    connections_max: int = CONNECTIONS_MAX
    connections_per_peer_max: int = CONNECTIONS_PER_PEER_MAX
    command_s_max: float = COMMAND_S_MAX
    data_s_max: float = DATA_S_MAX
    sign_in_s_max: float = SIGN_IN_S_MAX
    handshake_s_max: float = HANDSHAKE_S_MAX
    write_s_max: float = WRITE_S_MAX
    grace_s_max: float = GRACE_S_MAX

    def trusts(self, address: str) -> bool:
        """True where the peer's address lies in one of `plaintext_networks`."""
        if not self.plaintext_networks or not address:
            return False
        peer = ipaddress.ip_address(address)
        return any(peer in network for network in self.plaintext_networks)
