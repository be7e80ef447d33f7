"""A new epoch concerns everybody of the partition: whoever watches a mailbox is woken when one ended unclean."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from cluster.domain.mailbox import events as m
from node.config import Config
from storage.postgres.folded import News
from storage.postgres.pool import CHANNEL
from storage.projector import Fold
from tests.contracts.test_projector import ANNA, BO, Log
from tests.laws.tables_of_law import Site, site_tables


@pytest.fixture
async def site(engines: Config) -> AsyncIterator[Site]:
    async with site_tables(engines.database_url, "epochs_told") as made:
        yield made


async def test_an_unclean_epoch_wakes_everybody_and_a_clean_one_nobody(site: Site) -> None:
    told: asyncio.Queue[News] = asyncio.Queue()

    def heard(*args: Any) -> None:
        told.put_nowait(msgspec.json.decode(args[-1], type=News))

    await site.db.add_listener(CHANNEL, heard)
    fold, log = Fold(site.db, "p"), Log().open(ANNA, BO)
    await fold.start()
    log.put("0", m.EpochStarted(((1, 2, 0),)))
    log.put("0", m.EpochStarted(((1, 3, m.UID_GAP),)))
    log.put("0", m.TailSalvaged(1, 5))
    log.put("0", m.TailDestroyed(1))
    for record in log.records[2:]:
        await fold.batch([*log.records[:2], record])
    async with asyncio.timeout(10):
        touched = [(await told.get()).touched for _ in range(4)]
    assert touched == [{7: [0], 8: [0]}, None, {}, None]
