"""Questions to the tables whose answer may be that they are away."""

from collections.abc import Awaitable
from typing import TypeVar

import structlog

from cluster.domain.refusal import Reason, Refusal
from storage.postgres.pool import AWAY

UNAVAILABLE = Refusal(Reason.UNAVAILABLE, "The site cannot answer at the moment; try again later.")

log = structlog.get_logger("tables")
T = TypeVar("T")


async def answered(question: Awaitable[T]) -> T | Refusal:
    """The answer, or UNAVAILABLE where the database is away."""
    try:
        return await question
    except AWAY as error:
        log.warning("database away", error=f"{type(error).__name__}: {error}")
        return UNAVAILABLE
