"""What `angarium init` writes is what `load` reads; what is mistyped is refused where it stands; secrets stay secret."""

import datetime
import io
import json
import logging
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
import structlog
from click.testing import CliRunner, Result

from node import logs, relay
from node.certs import Certificate, covers
from node.cli import VERBS, main
from node.config import SOCKET_PATH_BYTES_MAX, STANDARD_PORTS, Config, ConfigRefused, Member, load, load_demo
from node.doctor import examine
from node.init import Plan, make_site, renew_certificate
from node.limits import MIB, Limits
from storage.bearer import Trust

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return site(tmp_path / "site")


def site(directory: Path, port_base: int = 20000) -> Config:
    plan = Plan(directory, "north", "Example.org", "mail.example.org", port_base=port_base, demo=True)
    return make_site(plan, NOW)


@pytest.fixture
def quiet_logs() -> Iterator[None]:
    """Puts the process's logging back as it was."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def change(config: Config, old: str, new: str) -> None:
    file = config.dir / "angarium.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="angarium")


def test_a_new_site_has_its_defaults(config: Config) -> None:
    assert (config.site, config.domain, config.hostname) == ("north", "example.org", "mail.example.org")
    assert msgspec.structs.asdict(config.ports) == {name: 20000 + port for name, port in STANDARD_PORTS.items()}
    assert config.nats.own and config.nats.url == "nats://127.0.0.1:24222" and config.nats.domain == "site-north"
    assert config.database_own and config.limits == Limits() and config.limits.message_bytes_max == 50 * MIB
    assert [person.address for person in load_demo(config.demo_file)] == ["anna@example.org", "ben@example.org"]


def test_every_setting_in_the_written_file_is_the_default_that_its_comment_shows(config: Config) -> None:
    """Uncommenting all of them changes nothing but the engines, the smarthost and the issuer of tokens, which have none."""
    file = config.dir / "angarium.toml"
    lines = file.read_text().splitlines()
    shown = [line.removeprefix("# ") if " = " in line and "_url" not in line else line for line in lines]
    sections = [line.removeprefix("# ") if line.startswith(("# [smarthost]", "# [oauth]")) else line for line in shown]
    file.write_text("\n".join(sections))
    uncommented = load(config.dir)
    assert uncommented.smarthost is not None and uncommented.smarthost.port == 587
    assert uncommented.oauth is not None
    assert uncommented.oauth == Trust(
        issuer=uncommented.oauth.issuer, audience=uncommented.oauth.audience, jwks=uncommented.oauth.jwks
    )
    assert msgspec.structs.replace(uncommented, smarthost=None, oauth=None) == config


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[limits]", "[limits]\nmessage_bytes_mx = 5", ("message_bytes_mx", "angarium.toml:")),
        ("[limits]", "[limits]\nmessage_bytes_max = '5'", ("limits.message_bytes_max", "angarium.toml:")),
        ("[limits]", "[limits]\nmessage_bytes_max = 0", ("limits.message_bytes_max", "above 0")),
        ("[limits]", "[limit]", ("limit", "angarium.toml:")),
        ("port_base = 20000", "port_base = 64000", ("port_base",)),
        ('bind = "127.0.0.1"', 'bind = "localhost"', ("listen.bind",)),
        ('name = "north"', 'name = "North Pole"', ("site.name",)),
        ('domain = "example.org"', 'domain = "example"', ("site.domain",)),
        ("plaintext_networks = [", 'plaintext_networks = ["10.0.0.1/8", ', ("plaintext_networks",)),
        ("[ports]", "[ports]\nnats = 0\n#", ("ports.nats",)),
        ("[site]", "[site", ("not TOML",)),
        ("[relay]", '[relay]\nthrough = "north"', ("relay.through", "another site")),
        ("[relay]", '[relay]\nthrough = "No Where"', ("relay.through", "another site")),
        ("[relay]", '[relay]\nthrough = "cloud"\n[smarthost]\nhost = "x.example"', ("relay.through", "not by both")),
    ],
)
def test_what_is_mistyped_is_refused_where_it_stands(
    config: Config, old: str, new: str, words: tuple[str, ...]
) -> None:
    change(config, old, new)
    with pytest.raises(ConfigRefused) as refused:
        load(config.dir)
    assert all(word in str(refused.value) for word in words), refused.value
    # The line is the line.
    if "angarium.toml:" in words:
        number = int(str(refused.value).partition("angarium.toml:")[2].partition(":")[0])
        key = words[0].rpartition(".")[2]
        assert key in (config.dir / "angarium.toml").read_text().splitlines()[number - 1]


MEMBERS = tuple(Member(name, "127.0.0.1", base) for name, base in (("north", 20000), ("south", 30000), ("east", 40000)))


def test_another_site_shares_the_first_ones_authority_and_backbone(tmp_path: Path) -> None:
    plan = Plan(tmp_path / "north", "north", "example.org", "mail.example.org", port_base=20000, members=MEMBERS)
    north = make_site(plan, NOW)
    south = make_site(Plan(tmp_path / "south", "south", "example.org", "b.example.org", port_base=30000, like=north.dir), NOW)
    assert north.backbone == south.backbone is not None and south.backbone.sites == ("north", "south", "east")
    assert north.tls.ca.read_bytes() == south.tls.ca.read_bytes()
    assert north.hmac_key == south.hmac_key and north.api_token != south.api_token
    assert south.nats.password != north.nats.password
    for wrong in (
        Plan(tmp_path / "x", "west", "example.org", "x.example.org", port_base=30000, like=north.dir),
        Plan(tmp_path / "x", "east", "example.org", "x.example.org", port_base=30000, like=north.dir),
        Plan(tmp_path / "x", "north", "example.org", "x.example.org", port_base=1, members=MEMBERS),
    ):
        with pytest.raises(ConfigRefused):
            make_site(wrong, NOW)
        assert not wrong.dir.exists()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('site = "east"', 'site = "south"', "each one once"),
        ('site = "north"', 'site = "west"', "no backbone.member is this site"),
        ("port_base = 40000", "port_base = 60000", "backbone.member.port_base"),
        ('[[backbone.member]]\nsite = "east"\nhost = "127.0.0.1"\nport_base = 40000\n', "", "has 3 members"),
    ],
)
def test_a_backbone_that_cannot_hold_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    plan = Plan(tmp_path / "north", "north", "example.org", "mail.example.org", port_base=20000, members=MEMBERS)
    file = make_site(plan, NOW).dir / "angarium.toml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigRefused, match=complaint):
        load(file.parent)


def test_engines_of_the_operator_are_not_ours(config: Config) -> None:
    change(config, "[engines]", '[engines]\nnats_url = "nats://log:4222"\ndatabase_url = "postgresql://db/mail"')
    own = load(config.dir)
    assert (own.nats.url, own.nats.own) == ("nats://log:4222", False)
    assert (own.database_url, own.database_own) == ("postgresql://db/mail", False)


def test_sockets_have_short_paths_wherever_the_site_is(tmp_path: Path) -> None:
    deep = site(tmp_path / ("deep-" * 20) / ("deeper-" * 10))
    assert len(str(deep.database_socket_dir / ".s.PGSQL.5432")) < SOCKET_PATH_BYTES_MAX
    assert deep.lmtp_socket is not None and len(str(deep.lmtp_socket)) < SOCKET_PATH_BYTES_MAX
    assert deep.database_socket_dir == load(deep.dir).database_socket_dir
    assert str(deep.database_socket_dir) in deep.database_url


def test_init_writes_over_nothing(config: Config) -> None:
    before = {path: path.read_bytes() for path in config.dir.rglob("*") if path.is_file()}
    with pytest.raises(ConfigRefused, match="is there already"):
        site(config.dir)
    assert {path: path.read_bytes() for path in config.dir.rglob("*") if path.is_file()} == before


def test_only_the_owner_reads_secrets(config: Config) -> None:
    for path in (config.dir / "secrets.toml", config.demo_file, config.tls.key, config.tls.ca_key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(config.dir.stat().st_mode) == 0o700


@pytest.mark.usefixtures("quiet_logs")
def test_no_secret_shows_in_a_representation_or_a_log(config: Config) -> None:
    secrets = (config.nats.password, config.nats.system_password, config.api_token, config.hmac_key)
    assert all(len(secret) >= 24 for secret in secrets)
    out = io.StringIO()
    logs.set_up("info", "json", out)
    structlog.get_logger().info("signed in", session="s1", password="pässword", api_token=config.api_token, config=config)
    line = json.loads(out.getvalue())
    assert (line["session"], line["password"], line["api_token"]) == ("s1", logs.MASK, logs.MASK)
    assert not [secret for secret in (*secrets, "pässword") if str(secret) in out.getvalue() + repr(config)]


@pytest.mark.parametrize("name", ["mail.example.org", "localhost", "127.0.0.1"])
def test_a_client_that_trusts_the_authority_trusts_the_server(config: Config, name: str) -> None:
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(config.tls.certificate, config.tls.key)
    client = ssl.create_default_context(cafile=str(config.tls.ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(3):
        for end in (theirs, ours):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert theirs.version() == "TLSv1.3" and theirs.getpeercert()


def test_a_renewed_certificate_is_another_one_of_the_same_authority(config: Config) -> None:
    before = config.tls.certificate.read_bytes(), config.tls.ca.read_bytes()
    renew_certificate(config, NOW + datetime.timedelta(days=700))
    assert config.tls.certificate.read_bytes() != before[0] and config.tls.ca.read_bytes() == before[1]
    fresh = Certificate(config.tls.certificate, config.tls.key)
    assert fresh.key_matches and (fresh.valid_until - NOW).days > 1400
    assert stat.S_IMODE(config.tls.key.stat().st_mode) == 0o600


def test_a_wildcard_stands_for_one_label() -> None:
    assert covers(("*.example.org",), "Mail.Example.org") and covers(("::1",), "::1")
    assert not covers(("*.example.org",), "a.b.example.org") and not covers(("*.example.org",), "example.org")


def test_doctor_finds_what_is_wrong_and_says_what_to_do(config: Config) -> None:
    def wrong() -> dict[str, str]:
        findings = [f for f in examine(config.dir, NOW) if f.level == "error" and f.check != "ports"]
        assert all(finding.remedy for finding in findings)
        return {finding.check: finding.text for finding in findings}

    assert wrong() == {}
    config.tls.key.chmod(0o644)
    assert "readable by others" in wrong()["secrets"]
    config.tls.key.write_bytes(config.tls.ca_key.read_bytes())
    assert "not the certificate's" in wrong()["certificates"]
    renew_certificate(config, NOW - datetime.timedelta(days=900))
    assert "valid until" in wrong()["certificates"]
    change(config, 'hostname = "mail.example.org"', 'hostname = "imap.example.org"')
    assert "certificates" in wrong()
    change(config, "[site]", "[sites]")
    assert "sites" in wrong()["configuration"]


def test_doctor_names_a_port_that_another_program_has(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = site(tmp_path / "site", port_base=max(0, port - 993))
        change(config, "[ports]", f"[ports]\nimap = {port}\nimaps = 0\n#")
        ports = [f for f in examine(config.dir, NOW) if f.check == "ports" and f"imap: 127.0.0.1:{port}" in f.text]
    assert len(ports) == 1 and ports[0].level == "error" and "another program" in ports[0].remedy


def test_doctor_asks_the_engines_of_the_operator(config: Config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        change(config, "[engines]", f'[engines]\ndatabase_url = "postgresql://u@127.0.0.1:{port}/mail"')
        assert f"PostgreSQL at 127.0.0.1:{port} listens" in [finding.text for finding in examine(config.dir, NOW)]
    lost = [finding for finding in examine(config.dir, NOW) if "database_url" in finding.text]
    assert [finding.level for finding in lost] == ["error"] and "refused" in lost[0].text and lost[0].remedy


def test_the_command_line_keeps_its_manners(tmp_path: Path) -> None:
    arguments = ("init", str(tmp_path / "new"), "--site", "north", "--domain", "example.org", "--json")
    made = run(*arguments)
    assert made.exit_code == 0 and json.loads(made.stdout)["domain"] == "example.org"
    again = run(*arguments)
    assert again.exit_code == 1 and again.stderr.count("\n") == 1 and "choose another folder" in again.stderr
    assert run("init").exit_code == 2 and run("nonsense").exit_code == 2
    nowhere = run("up", str(tmp_path / "nowhere"))
    assert nowhere.exit_code == 1 and nowhere.stderr.count("\n") == 1 and "angarium init" in nowhere.stderr


def leaves(command: click.Command) -> list[click.Command]:
    return [leaf for each in command.commands.values() for leaf in leaves(each)] if isinstance(
        command, click.Group
    ) else [command]


def test_every_verb_is_there_has_help_and_takes_json() -> None:
    context = click.Context(main)
    for verb in VERBS:
        command = main.get_command(context, verb)
        assert command is not None
        for leaf in leaves(command):
            assert leaf.help and any("--json" in option.opts for option in leaf.params), f"{verb} {leaf.name}"


def test_mail_for_elsewhere_may_leave_by_another_site(config: Config) -> None:
    assert not config.routes_elsewhere
    change(config, "[relay]", '[relay]\nthrough = "cloud"')
    there = load(config.dir)
    assert there.routes_elsewhere and there.relay.through == "cloud" and relay.settings(there).through == "queue-cloud"
