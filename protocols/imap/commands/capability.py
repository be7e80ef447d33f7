"""CAPABILITY (RFC 9051 §6.1.1). It never promises what is not there, and says what is true now: before and after TLS and signing in."""

from protocols.imap.commands.compress import offered as compress_offered
from protocols.imap.commands.metadata import CAPABILITIES as METADATA
from protocols.imap.commands.quota import offered as quota_offered
from protocols.imap.commands.unauthenticate import offered as unauthenticate_offered
from protocols.imap.model import Reply, Request
from protocols.imap.state import Talk
from protocols.sasl import offered

ANYTIME = ("IMAP4rev1", "IMAP4rev2", "LITERAL+", "SASL-IR", "ID", "ENABLE")
SIGNED_IN = (
    "IDLE", "NAMESPACE", "UNSELECT", "CHILDREN", "LIST-EXTENDED", "LIST-STATUS", "SPECIAL-USE", "CREATE-SPECIAL-USE", "UIDPLUS", "MOVE",
    "MULTIAPPEND", "ESEARCH", "SEARCHRES", "WITHIN", "SORT", "SORT=DISPLAY", "ESORT", "THREAD=ORDEREDSUBJECT", "THREAD=REFERENCES",
    "MULTISEARCH", "CONTEXT=SEARCH", "INPROGRESS", "PARTIAL", "REPLACE", "CATENATE", "UIDONLY", "BINARY", "STATUS=SIZE", "CONDSTORE",
    "QRESYNC", "NOTIFY", "OBJECTID", "SAVEDATE", "PREVIEW", "UTF8=ACCEPT",
    "ACL", "RIGHTS=kxte", "LIST-MYRIGHTS",
)  # fmt: skip


def words(talk: Talk) -> str:
    found = list(ANYTIME)
    if talk.account is not None:
        # RFC 7889 §4: the limit that holds for every mailbox
        found += [*SIGNED_IN, *quota_offered(talk), *METADATA, f"APPENDLIMIT={talk.settings.message_bytes_max}"]
        if compress_offered(talk):
            found.append("COMPRESS=DEFLATE")
        if unauthenticate_offered(talk):
            found.append("UNAUTHENTICATE")
        return " ".join(found)
    if talk.introducer:
        # RFC 4422 §A: whoever is at the other end has shown a certificate, and has no password of anybody
        return " ".join([*found, "LOGINDISABLED", "AUTH=EXTERNAL"])
    if not talk.secure and talk.settings.tls() is not None:
        found.append("STARTTLS")
    if talk.may_sign_in:
        found += [f"AUTH={name}" for name in offered(talk.site, secure=talk.secure, end_point=talk.end_point)]
    else:
        found.append("LOGINDISABLED")  # RFC 9051 §6.2.3
    return " ".join(found)


async def capability(talk: Talk, request: Request) -> Reply:
    talk.say(f"CAPABILITY {words(talk)}")
    return Reply("OK", "These.")
