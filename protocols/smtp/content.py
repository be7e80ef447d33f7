"""A message as it comes in, whether by DATA or BDAT: fed to the site piece by piece, so that a slow disk slows the peer."""

import structlog

from protocols.port import Ingest, Site
from protocols.smtp.errors import OUR_FAULT
from protocols.smtp.model import Piece, Reply

TOO_BIG = Reply(552, "5.3.4", ("The message is too big",))
BARE = Reply(550, "5.5.2", ("A bare CR or LF in the message; lines end with CRLF (RFC 5321 2.3.8)",))

log = structlog.get_logger()


class Incoming:
    """What is refused is read to its end all the same, and answered then."""

    def __init__(self, site: Site, bytes_max: int) -> None:
        self.ingest: Ingest = site.ingest(bytes_max)
        self.eight_bit = False
        self.size = 0
        self._clean = True
        self._fits = True
        self._failed = False
        self._wanted = True

    async def take(self, piece: Piece) -> None:
        data, _, clean = piece
        if not clean:
            self._clean = False
        if not data or not self._wanted:
            return
        self.size += len(data)
        if not self.eight_bit and not data.isascii():
            self.eight_bit = True
        try:
            self._fits = await self.ingest.feed(data)
        except Exception:
            log.exception("smtp.ingest_failed")
            self._failed = True
        if self.refusal is not None:
            self._wanted = False
            self.ingest.abandon()

    @property
    def refusal(self) -> Reply | None:
        """Known only for certain at the message's end."""
        if not self._clean:
            return BARE
        if not self._fits:
            return TOO_BIG
        return OUR_FAULT if self._failed else None

    def abandon(self) -> None:
        self.ingest.abandon()
