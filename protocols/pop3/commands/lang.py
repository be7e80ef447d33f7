"""LANG (RFC 6856 §3). One language is spoken here."""

from protocols.pop3 import writer
from protocols.pop3.model import Reply
from protocols.pop3.state import Talk


async def lang(talk: Talk, argument: bytes) -> Reply | None:
    asked = argument.decode("ascii", "replace").strip().lower()
    if not asked:
        talk.say(Reply(True, "These languages are spoken."))
        talk.put(writer.lines(("en English", "i-default English")))  # RFC 2277 §4.5: the default is one that is always there
        talk.put(writer.END)
        return None
    # RFC 6856 §3.2: "*" is the server's own choice
    if asked in ("en", "i-default", "*") or asked.startswith("en-"):
        return Reply(True, f"{'i-default' if asked == 'i-default' else 'en'} It goes on in English.")
    return Reply(False, "That language is not spoken here.")
