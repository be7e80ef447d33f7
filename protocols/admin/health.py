"""Is it alive (/healthz: the loop answers), and is it of use (/readyz: every check passes)?"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

CHECK_S_MAX = 2.0

# Empty when all is well, else one sentence that says what is not.
Check = Callable[[], Awaitable[str]]


class Readiness(msgspec.Struct, frozen=True):
    """`reasons`: of each check that fails, by its name."""

    ready: bool
    reasons: dict[str, str]


class Health:
    """`checks` by name; more may be added while the worker starts. None at all = not ready, as nothing is known."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)

    def add(self, name: str, check: Check) -> None:
        self._checks[name] = check

    async def readiness(self) -> Readiness:
        if not self._checks:
            return Readiness(False, {"worker": "is starting"})
        found = await asyncio.gather(*(_ask(check) for check in self._checks.values()))
        reasons = {name: why for name, why in zip(self._checks, found, strict=True) if why}
        return Readiness(not reasons, reasons)


async def _ask(check: Check) -> str:
    try:
        return await asyncio.wait_for(check(), CHECK_S_MAX)
    except TimeoutError:
        return f"no answer in {CHECK_S_MAX:.0f} s"
    except Exception as error:  # a check that fails in an unforeseen way is a check that fails
        return f"{type(error).__name__}: {error}"
