"""An engine that stands still (a frozen process, a disk that hangs) must not freeze clients: each hears soon that it may
try again later, and all goes on by itself when the engine does."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.faults import site as sites
from tests.faults.clients import Answer, Imap, Smtp
from tests.faults.load import Story, text
from tests.faults.verdict import judge, signed_in

ANSWERED_S_MAX = 12.0
RECOVERED_S_MAX = 10.0
POLL_S = 0.05

T = TypeVar("T")


async def timed(question: Awaitable[T]) -> tuple[T, float]:
    clock = asyncio.get_running_loop().time
    began = clock()
    answer = await question
    return answer, clock() - began


@pytest.mark.long
@pytest.mark.parametrize("engine", ["nats", "postgres"])
async def test_a_frozen_engine_is_answered_for_and_forgotten(tmp_path: Path, engine: str) -> None:
    site = sites.made(tmp_path / "site")
    anna, ben = site.people
    story = Story()
    await site.start()
    try:
        smtp = await Smtp.connect(site.config.ports.smtp)
        imap = await signed_in(site, ben)
        for mailbox in ("Work", "Done"):
            await imap.ask(f"CREATE {mailbox}")
        assert await sent(smtp, story, "before", anna) == 250
        reader = await signed_in(site, anna)
        assert (await reader.ask("SELECT INBOX")).state == "OK"
        with site.freeze(engine):
            answers = await asyncio.gather(
                timed(sent(smtp, story, "during", anna)),
                timed(imap.ask("APPEND Work", text("appended"))),
                timed(reader.ask("UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1)")),
            )
        story.states["appended"] = {None, ("Work", False)}
        (code, smtp_s), (appended, imap_s), (fetched, fetch_s) = answers
        print(f"  {engine} frozen: SMTP {code} after {smtp_s:.1f} s, IMAP {appended.text!r} after {imap_s:.1f} s")
        # Deliveries need the log only: while the database is away they may go on.
        assert code in (0, 451) or (engine == "postgres" and code == 250)
        assert appended.state == "NO" and "[UNAVAILABLE]" in appended.text
        # Reading needs the database only.
        assert fetched.state == "OK" if engine == "nats" else "[UNAVAILABLE]" in fetched.text
        assert max(smtp_s, imap_s, fetch_s) <= ANSWERED_S_MAX
        _, back_s = await timed(recovered(smtp, imap, story, anna))
        print(f"  back {back_s:.1f} s after it went on")
        assert not await judge(site, story), site.words()
    finally:
        await site.stop()


async def sent(smtp: Smtp, story: Story, name: str, to: str) -> int:
    code = await smtp.send([to], text(name))
    story.sent[name] = ((to,), (to,) if code == 250 else ())
    return code


async def recovered(smtp: Smtp, imap: Imap, story: Story, to: str) -> Answer:
    """Returns when the same sessions are served again."""
    async with asyncio.timeout(RECOVERED_S_MAX):
        tries = 0
        while await sent(smtp, story, f"after-{tries}", to) != 250:
            tries += 1
            await asyncio.sleep(POLL_S)
        while (answer := await imap.ask("SELECT INBOX")).state != "OK":  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        return answer
