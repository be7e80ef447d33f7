"""[oauth] of a site's files: whose tokens are taken instead of passwords."""

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from node.backbone import ConfigRefused
from storage.bearer import Trust


class OAuthFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As it is written. `jwks`: a URL, or a file beside angarium.toml."""

    issuer: str
    audience: str = ""
    jwks: str = ""
    introspection: str = ""
    client_id: str = ""
    claim: str = "email"
    scope: str = ""
    ca: str = ""


class OAuthSecrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    client_secret: str = ""


def trust(path: Path, file: OAuthFile | None, secrets: OAuthSecrets) -> Trust | None:
    """`path`: of angarium.toml. Raises ConfigRefused."""
    if file is None:
        return None
    if not file.issuer or not file.claim:
        raise ConfigRefused(f"{path}: oauth.issuer and oauth.claim must not be empty")
    if not file.jwks and not file.introspection:
        raise ConfigRefused(f"{path}: [oauth] needs jwks or introspection: by what else would a token be judged?")
    if file.jwks and not file.audience:
        # RFC 8725 §3.9: or whatever the issuer signs for anybody would open every mailbox here.
        raise ConfigRefused(f"{path}: [oauth] with jwks needs audience")
    if file.introspection and not (file.client_id and secrets.client_secret):
        raise ConfigRefused(f"{path}: oauth.introspection needs client_id here, and [oauth] client_secret in secrets.toml")
    for name, url in (("jwks", file.jwks), ("introspection", file.introspection)):
        if "://" in url and not _guarded(url):
            raise ConfigRefused(f"{path}: oauth.{name} must be https://…, or http:// on this machine")
    if file.introspection and "://" not in file.introspection:
        raise ConfigRefused(f"{path}: oauth.introspection must be a URL")
    jwks: str | Path | None = None
    if file.jwks:
        jwks = file.jwks if "://" in file.jwks else path.parent / file.jwks
    return Trust(
        issuer=file.issuer,
        audience=file.audience,
        jwks=jwks,
        introspection=file.introspection,
        client_id=file.client_id,
        client_secret=secrets.client_secret,
        claim=file.claim,
        scope=file.scope,
        ca=_ca(path, file.ca),
    )


def _ca(path: Path, name: str) -> Path | None:
    found = path.parent / name if name else None
    if found is not None and not found.is_file():
        raise ConfigRefused(f"{path}: oauth.ca: {found} is not there")
    return found


def _guarded(url: str) -> bool:
    """Nobody between reads the token or changes the keys."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and ipaddress.ip_address(host).is_loopback))
    except ValueError:
        return False
