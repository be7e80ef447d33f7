"""A server's certificate by an authority that is made for it, and a client that trusts this authority only."""

import datetime
import ssl
from pathlib import Path

from node import certs


def contexts(folder: Path, host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(server's, client's). The certificate lies in `folder` afterwards."""
    now = datetime.datetime.now(datetime.UTC)
    authority, authority_key = certs.make_authority("north", now)
    chain, key = certs.issue(authority, authority_key, (host,), now)
    (folder / "chain.pem").write_bytes(chain)
    (folder / "key.pem").write_bytes(key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    return server, ssl.create_default_context(cadata=authority.decode())
