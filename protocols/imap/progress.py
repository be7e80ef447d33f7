"""How far a long command is (RFC 9585): said every few seconds, so that no client takes a slow answer for a dead server."""

from protocols.imap.state import Talk


class Progress:
    """Of one command with `goal` messages to look at."""

    def __init__(self, talk: Talk, tag: str, goal: int) -> None:
        self._talk, self._tag, self._goal = talk, tag, goal
        self._done = 0
        self._said_at = talk.site.world.monotonic()

    async def made(self, messages: int) -> None:
        """So many more are done. Raises WireClosed."""
        self._done += messages
        now = self._talk.site.world.monotonic()
        if self._done >= self._goal or now - self._said_at < self._talk.settings.progress_every_s:
            return
        self._said_at = now
        # RFC 9585 §4: tag, progress and goal
        self._talk.say(f'OK [INPROGRESS ("{self._tag}" {self._done} {self._goal})] Still at it.')
        await self._talk.flush()
