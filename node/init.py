"""Makes the folder of a new site: its configuration, its certificates, its secrets. Never writes over anything."""

import datetime
import os
import secrets
import socket
from pathlib import Path

import msgspec

from cluster.control.roster import founded
from cluster.domain.directory import addresses
from node import certs, nkeys
from node.backbone import ROSTER_NAME
from node.config import STANDARD_PORTS, Config, ConfigRefused, Member, load, valid_domain, valid_site_name
from node.limits import Limits

DEMO_PEOPLE = (("anna", "Anna Example"), ("ben", "Ben Example"))
OWN_FILES = ("angarium.toml", "secrets.toml", "demo.toml", "tls", ROSTER_NAME)

CONFIGURATION = """\
# The configuration of one Angarium site. What is not set here has the default that the comment shows.
# Domains, people, aliases and groups are not here: they are in the log (`angarium --dir DIR account add …`).

[site]
{witness}name = "{site}"  # one word, unique among the sites of the organisation; never changes
domain = "{domain}"  # the first start adds this domain if the directory is empty
hostname = "{hostname}"  # how this server calls itself to others, and what clients connect to

[listen]
bind = "{bind}"  # 0.0.0.0 or :: to serve the network
port_base = {port_base}  # every port is this number + its protocol's standard port; 0 = the standard ports
# lmtp_socket = "lmtp.sock"       # beside the site's other sockets; an absolute path, or "" for none

[ports]                           # a port of its own for one language; 0 switches it off
{ports}

[tls]                             # PEM files, relative to this folder; SIGHUP to `angarium up` reads them again
# certificate = "tls/server.pem"
# key = "tls/server.key"
# ca = "tls/ca.pem"               # what mail clients are told to trust
# ca_key = "tls/ca.key"           # only for issuing certificates: `angarium certificate renew`

[engines]                         # both are started and watched by `angarium up` unless a URL of your own is given
# nats_url = "nats://log.example.org:4222"                   # its password is in secrets.toml
# database_url = "postgresql://angarium@db.example.org/angarium"

[node]
# workers = 1                     # processes that serve clients; 0 = one for each core
# log_level = "info"              # debug, info, warning, error
# log_format = "auto"             # json, console; auto = console on a terminal, json elsewhere

[security]
# Networks where passwords are taken without TLS and sign-in is not throttled: for test tools and old devices only.
plaintext_networks = [{plaintext}]
# imap_unauthenticate = true      # false where a proxy that does not know UNAUTHENTICATE (RFC 8437) stands before the site
# imap_compress = true            # COMPRESS=DEFLATE (RFC 4978)

# [oauth]                         # people also sign in by a token of this issuer (OAUTHBEARER, XOAUTH2)
# issuer = "https://id.example.org"
# audience = "mail.example.org"
# jwks = "https://id.example.org/keys"             # its keys: a URL, or a file beside this one
# introspection = ""              # it is asked about every token; client_secret of [oauth] is in secrets.toml
# client_id = ""
# claim = "email"                 # which names the account by its address
# scope = ""

[limits]
{limits}

[relay]
# through = ""                    # name of another site, which then sends the mail for other domains by its smarthost

{backbone}# [smarthost]                     # takes the mail for other domains; its password is in secrets.toml
# host = "relay.example.net"
# port = 587
# tls = "starttls"                # starttls (required), implicit, none
# user = ""
"""

SECRETS = """\
# Secrets of the site: readable by its owner only, never in a log, never in a repository.

api_token = "{api_token}"         # the bearer token of the administration interface
hmac_key = "{hmac_key}"

[nats]
user = "angarium"
password = "{nats_password}"
system_password = "{nats_system_password}"

[smarthost]
password = ""
"""

BACKBONE_SECRETS = """
[backbone]                        # the same at every site
route_password = "{route}"
leaf_password = "{leaf}"
client_password = "{client}"
"""


class Plan(msgspec.Struct, frozen=True):
    """What `angarium init` was asked for."""

    dir: Path
    site: str
    domain: str
    hostname: str  # empty: the site's own default
    bind: str = "127.0.0.1"
    port_base: int = 0
    demo: bool = False
    members: tuple[Member, ...] = ()  # of a backbone, the first site's first; none = a single site
    like: Path | None = None  # the folder of the first site, whose authority and backbone this one shares
    host: str = ""  # where other sites reach it, if any shall ever join; empty = it stays alone
    witness: bool = False  # nothing but a member of the backbone


def make_site(plan: Plan, now: datetime.datetime) -> Config:
    """Writes the folder and gives its configuration. Raises ConfigRefused, before anything is written, if the plan is
    not sound or one of the files is there already."""
    home = plan.dir.absolute()
    first = load(plan.like) if plan.like is not None else None
    if first is not None:
        plan = _like(plan, first)
    plan = _named(plan)
    refuse_unsound(plan, home)
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / "tls").mkdir(mode=0o700)
    if first is None:
        authority, authority_key = certs.make_authority(plan.site, now)
    else:
        authority, authority_key = first.tls.ca.read_bytes(), first.tls.ca_key.read_bytes()
    names = certificate_names(plan.hostname, *(member.host for member in plan.members if member.site == plan.site))
    # Sites that are listed by hand have no other certificate, and know each other by this one.
    certificate, key = certs.issue(authority, authority_key, names, now, plan.site if plan.members else "")
    write(home / "tls" / "ca.pem", authority, 0o644)
    write(home / "tls" / "ca.key", authority_key, 0o600)
    write(home / "tls" / "server.pem", certificate, 0o644)
    write(home / "tls" / "server.key", key, 0o600)
    seed, leaf_key = nkeys.make()
    write(home / "secrets.toml", _secrets_text(plan, first, seed).encode(), 0o600)
    if plan.host:
        _found(plan, home, (authority, authority_key), leaf_key, now)
    if plan.demo:
        write(home / "demo.toml", _demo_text(plan.domain).encode(), 0o600)
    # Last, because it is what makes the folder a site.
    write(home / "angarium.toml", configuration_text(plan).encode(), 0o600)
    return load(home)


def _found(plan: Plan, home: Path, authority: tuple[bytes, bytes], leaf_key: str, now: datetime.datetime) -> None:
    """What a first site has beside, so that others can join it."""
    certificate, key = certs.issue(*authority, certificate_names(plan.host), now, plan.site)
    write(home / "tls" / "link.pem", certificate, 0o644)
    write(home / "tls" / "link.key", key, 0o600)
    own = Member(plan.site, plan.host, plan.port_base, plan.hostname, leaf_key=leaf_key, pin=certs.pin(certificate))
    write(home / ROSTER_NAME, msgspec.json.format(msgspec.json.encode(founded(own))), 0o600)


def certificate_names(hostname: str, *more: str) -> tuple[str, ...]:
    """What a self-made server certificate is for: the mail host name, and this machine under its usual names."""
    return tuple(dict.fromkeys((hostname, *more, socket.gethostname(), "localhost", "127.0.0.1", "::1")))


def renew_certificate(config: Config, now: datetime.datetime) -> None:
    """New certificates by the site's own authority, put in the old ones' place. The key of the links stays: the other sites
    know it by that. Raises ConfigRefused."""
    tls, backbone = config.tls, config.backbone
    joined = backbone is not None and backbone.roster is not None
    if joined and not tls.ca_key.exists():
        assert backbone is not None and backbone.roster is not None
        first = backbone.roster.authority
        raise ConfigRefused(
            f"the authority's key is at {first}: there run `angarium cluster token --site {config.site} --renew`, and here "
            "`angarium certificate renew --token TOKEN`"
        )
    try:
        authority = tls.ca.read_bytes(), tls.ca_key.read_bytes()
        reached = (backbone.of(config.site).host,) if backbone is not None else ()
        listed = config.site if backbone is not None and not joined else ""
        certificate, key = certs.issue(*authority, certificate_names(config.hostname, *reached), now, listed)
        if joined:
            request, _ = certs.make_request(config.site, tls.link_key.read_bytes())
            link = certs.sign(*authority, certs.requested_key(request), certificate_names(*reached), now, config.site)
            replace(tls.link_certificate, link, 0o644)
    except (OSError, ValueError) as error:
        advice = f"put a certificate of your own in {tls.certificate}"
        raise ConfigRefused(f"the site's own authority cannot issue: {error}; {advice}") from None
    replace(tls.key, key, 0o600)
    replace(tls.certificate, certificate, 0o644)


def replace(path: Path, content: bytes, mode: int) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    write(fresh, content, mode)
    fresh.replace(path)


def _like(plan: Plan, first: Config) -> Plan:
    """Raises ConfigRefused if the first site does not expect this one."""
    if first.backbone is None:
        raise ConfigRefused(f"{first.dir} is a single site: it has no backbone to join")
    if plan.site == first.site or plan.site not in first.backbone.sites:
        raise ConfigRefused(f"--site must be one of the other members of {first.dir}: {', '.join(first.backbone.sites)}")
    return msgspec.structs.replace(plan, members=first.backbone.members)


def _named(plan: Plan) -> Plan:
    """One of several sites has a name that no other has: by default the one at which the others reach it. The first one
    tells its own to those made like it."""
    own = next((member for member in plan.members if member.site == plan.site), None)
    host = (own.hostname or addresses.canonical_domain(own.host)) if own is not None else ""
    hostname = plan.hostname or host or f"{'mail' if own is None else plan.site}.{plan.domain}"
    members = plan.members
    if plan.like is None:
        named = (msgspec.structs.replace(each, hostname=hostname) if each == own else each for each in members)
        members = tuple(named)
    return msgspec.structs.replace(plan, hostname=hostname, members=members)


def refuse_unsound(plan: Plan, home: Path) -> None:
    if not valid_site_name(plan.site):
        raise ConfigRefused(f"--site must be lower-case letters, digits and dashes (at most 31), not {plan.site!r}")
    for option, name in (("--domain", plan.domain), ("--hostname", plan.hostname)):
        if not valid_domain(name):
            raise ConfigRefused(f"{option} must be a name like example.org, not {name!r}")
    bases = [member.port_base for member in plan.members if member.site == plan.site]
    if plan.host and plan.members:
        raise ConfigRefused("--host is of a site that others join by a token; with --member and --like they are listed")
    if plan.members and bases != [plan.port_base]:
        raise ConfigRefused(f"--member must name site {plan.site} once, with its --port-base {plan.port_base}")
    there = [name for name in OWN_FILES if (home / name).exists()]
    if there:
        raise ConfigRefused(f"{home / there[0]} is there already: nothing was changed; choose another folder")
    if home.exists() and not home.is_dir():
        raise ConfigRefused(f"{home} is not a folder: choose another")


def configuration_text(plan: Plan) -> str:
    limits = msgspec.structs.asdict(Limits())
    return CONFIGURATION.format(
        witness="witness = true\n" if plan.witness else "",
        site=plan.site,
        domain=plan.domain.lower(),
        hostname=plan.hostname.lower(),
        bind=plan.bind,
        port_base=plan.port_base,
        plaintext='"127.0.0.0/8", "::1/128"' if plan.demo else "",
        ports="\n".join(f"# {name} = {plan.port_base + port}" for name, port in STANDARD_PORTS.items()),
        limits="\n".join(f"# {name} = {value}" for name, value in limits.items()),
        backbone="".join(
            f'[[backbone.member]]\nsite = "{each.site}"\nhost = "{each.host}"\nport_base = {each.port_base}\n'
            + (f'hostname = "{each.hostname}"\n' if each.hostname else '# hostname = ""  # what clients connect to, if not host\n')
            + "\n"
            for each in plan.members
        ),
    )


def keyed_secrets(hmac_key: str, seed: str) -> str:
    """The secrets of a site that others know by its public keys."""
    backbone = f'\n[backbone]\nclient_password = "{secrets.token_urlsafe(24)}"\nleaf_seed = "{seed}"\n'
    return SECRETS.format(
        api_token=secrets.token_urlsafe(32),
        hmac_key=hmac_key,
        nats_password=secrets.token_urlsafe(24),
        nats_system_password=secrets.token_urlsafe(24),
    ) + backbone


def _secrets_text(plan: Plan, first: Config | None, seed: str) -> str:
    if plan.host:
        return keyed_secrets(secrets.token_hex(32), seed)
    shared = first.backbone if first is not None else None
    backbone = BACKBONE_SECRETS.format(
        route=shared.route_password if shared else secrets.token_urlsafe(24),
        leaf=shared.leaf_password if shared else secrets.token_urlsafe(24),
        client=shared.client_password if shared else secrets.token_urlsafe(24),
    )
    return SECRETS.format(
        api_token=secrets.token_urlsafe(32),
        # The same at every site: what a name that does not exist is answered must not tell one site from another.
        hmac_key=first.hmac_key if first is not None else secrets.token_hex(32),
        nats_password=secrets.token_urlsafe(24),
        nats_system_password=secrets.token_urlsafe(24),
    ) + (backbone if plan.members else "")


def _demo_text(domain: str) -> str:
    text = "# People of a demo site: the first start makes their accounts. Delete this file in a real one.\n"
    for local, name in DEMO_PEOPLE:
        text += f'\n[[person]]\naddress = "{local}@{domain.lower()}"\nname = "{name}"\n'
        text += f'password = "{secrets.token_urlsafe(9)}"\n'
    return text


def write(path: Path, content: bytes, mode: int) -> None:
    """A new file with its mode from its first moment; refuses one that is there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
