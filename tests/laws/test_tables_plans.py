"""How the database goes about it in a large mailbox: no timing, but how many rows are looked at."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from node.config import Config
from storage.postgres import expunged_fold, expunged_view, mail_fold, mail_view
from tests.laws.tables_of_law import Site, site_tables

MESSAGES = 100_000
LARGE, SMALL, OTHER, ACCOUNT = 70, 71, 72, 7
RANGES = 1_000
SET_UP = f"""
INSERT INTO mailbox (id, account, name, uidvalidity, uidnext, modseq, special_use)
    VALUES ({LARGE}, {ACCOUNT}, 'INBOX', 1, {MESSAGES + 1}, {MESSAGES}, ''), ({SMALL}, {ACCOUNT}, 'b', 2, 1, 1, '');
INSERT INTO flag SELECT {LARGE}, n, n, 0, '{{}}' FROM generate_series(1, {MESSAGES}) n;
INSERT INTO message SELECT {LARGE}, n, int8send(n), 1, 0, 0, 0, n, n, 0 FROM generate_series(1, {MESSAGES}) n;
INSERT INTO content SELECT int8send(n), 1, NULL, '', '' FROM generate_series(1, {MESSAGES}) n;
INSERT INTO mail_account VALUES ({ACCOUNT}, 'p', 2);
INSERT INTO expunged SELECT {SMALL}, n, n, 0, '{{}}', int8send(n), 1, 0, 0, 0, n, 0, n, false, 0
    FROM generate_series(1, {MESSAGES}) n
"""  # noqa: S608


# The engine counted the rows when there was another mailbox only, and so takes this one for empty.
OTHERS = f"""
INSERT INTO flag SELECT {OTHER}, n, n, 0, '{{}}' FROM generate_series(1, {MESSAGES}) n;
INSERT INTO message SELECT {OTHER}, n, int8send(n), 1, 0, 0, 0, n, n, 0 FROM generate_series(1, {MESSAGES}) n;
ANALYZE flag, message
"""  # noqa: S608


@pytest.fixture(params=["analyzed", "not yet analyzed", "analyzed before it came"])
async def large(engines: Config, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with site_tables(engines.database_url, "law_plans") as site:
        others = OTHERS if request.param == "analyzed before it came" else ""
        for statement in (*filter(None, others.split(";")), *SET_UP.split(";")):
            await site.db.execute(statement)
        if request.param == "analyzed":
            await site.db.execute("VACUUM ANALYZE flag, message, content, mailbox")
        yield site


async def looked_at(site: Site, query: str, *args: Any) -> int:
    """Rows that any step of the plan gave or threw away, in all of its loops. Nothing stays changed."""
    transaction = site.db.transaction()
    await transaction.start()
    try:
        plan = await site.db.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *args)
    finally:
        await transaction.rollback()
    return int(sum(_rows(msgspec.json.decode(plan)[0]["Plan"])))


def _rows(node: dict[str, Any]) -> Iterator[float]:
    removed = sum(count for name, count in node.items() if name.startswith("Rows Removed by"))
    yield (node["Actual Rows"] + removed) * node["Actual Loops"]
    for child in node.get("Plans", ()):
        yield from _rows(child)


def odd_ones() -> tuple[list[int], list[int]]:
    """Ranges of one UID each, all over the mailbox, and one that no UID is in."""
    firsts = [MESSAGES // RANGES * n + 1 for n in range(RANGES)]
    return [*firsts, MESSAGES + 5], [*firsts, MESSAGES + 9]


async def test_many_ranges_cost_what_they_name(large: Site) -> None:
    firsts, lasts = odd_ones()
    budget = 30 * RANGES
    assert await looked_at(large, mail_view.FLAGS, LARGE, firsts, lasts, 0, ACCOUNT) < budget
    assert await looked_at(large, mail_view.UIDS, LARGE, firsts, lasts, 0, ACCOUNT) < budget
    assert await looked_at(large, expunged_fold.EXPUNGE, LARGE, firsts, lasts, True, 1, 1, False) < budget


async def test_changes_on_many_ranges_cost_what_they_change(large: Site) -> None:
    firsts, lasts = odd_ones()
    # Where there are no statistics yet, a whole pass over the mailbox is borne; a pass for each range never is.
    budget = 10 * MESSAGES
    assert await looked_at(large, mail_fold.CHANGE_FLAGS, LARGE, 1, 4, ["x"], firsts, lasts, MESSAGES + 1, 0) < budget
    assert await looked_at(large, mail_fold.COPY_MESSAGES, LARGE, SMALL, firsts, lasts, 1, MESSAGES + 1, 1) < budget
    assert await looked_at(large, expunged_fold.EXPUNGE, LARGE, firsts, lasts, False, MESSAGES + 1, 1, False) < budget


async def test_what_was_expunged_costs_what_is_asked_of_it(large: Site) -> None:
    firsts, lasts = odd_ones()
    budget = 30 * RANGES
    assert await looked_at(large, expunged_view.PLACES, SMALL, firsts, lasts, ACCOUNT, 0) < budget
    assert await looked_at(large, expunged_view.MESSAGES.format("NULL, NULL"), SMALL, firsts) < budget
    restoring = (SMALL, LARGE, firsts, lasts, MESSAGES + 1, MESSAGES + 1, 1, ACCOUNT)
    # As for other changes: a whole pass is borne where nothing is known of the table, one for each range never is.
    assert await looked_at(large, expunged_fold.RESTORE, *restoring) < 10 * MESSAGES


async def test_a_batch_of_messages_costs_no_more_at_the_end_of_a_large_mailbox(large: Site) -> None:
    query = mail_view.MESSAGES.replace("EXTRA", "c.description, c.segments")
    uids = list(range(MESSAGES - 200, MESSAGES))
    assert await looked_at(large, query, LARGE, uids, 0, ACCOUNT) < 30 * len(uids)


@pytest.mark.parametrize("large", ["analyzed"], indirect=True)
async def test_the_newest_changes_are_found_without_reading_the_mailbox(large: Site) -> None:
    assert await looked_at(large, mail_view.CHANGES, LARGE, ACCOUNT, MESSAGES - 10) < MESSAGES // 10
