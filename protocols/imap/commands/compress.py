"""COMPRESS (RFC 4978)."""

from protocols.imap import writer
from protocols.imap.deflate import Deflate
from protocols.imap.model import Compress, Reply, Request
from protocols.imap.state import Talk


def offered(talk: Talk) -> bool:
    """Not to a session that is carried here: the site in between follows the replies, to know where it may end them."""
    return talk.settings.compress and not talk.introducer


async def compress(talk: Talk, request: Request) -> Reply | None:
    given = request.arguments
    assert isinstance(given, Compress)
    if given.algorithm != "DEFLATE" or not offered(talk):
        return Reply("BAD", "That is not offered here.")
    if talk.deflate is not None:
        return Reply("NO", "It is on already.", "COMPRESSIONACTIVE")  # RFC 4978 §3
    if not talk.parser.empty or not talk.wire.idle:
        # RFC 4978 §3: nothing is sent before the answer; what was could be plain or not
        return Reply("BAD", "Nothing may be sent ahead behind COMPRESS.")
    talk.put(writer.tagged(request.tag, Reply("OK", "Compressed from here on.")))
    await talk.flush()
    talk.deflate = Deflate()
    return None
