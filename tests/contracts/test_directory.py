"""What a process keeps of the directory is never older than the directory's last change."""

from collections.abc import Awaitable, Callable

import pytest

import storage.directory
from cluster.domain.directory.commands import AddAlias, RemoveAlias
from cluster.domain.directory.resolve import Resolution, resolve
from cluster.domain.directory.state import Missing, Slice
from cluster.domain.refusal import Refusal
from storage.directory import Directory
from storage.postgres.directory_view import DirectoryView
from tests.live import ACTOR, Live


class Slow(DirectoryView):
    """Something happens between the first look and its answer."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def look_up(self, missing: Missing, known: Slice) -> Slice:
        found = await super().look_up(missing, known)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return found


async def test_a_change_amid_a_question_of_several_rounds_is_not_missed_for_ever(live_site: Live) -> None:
    anna = await live_site.person("anna")
    domain = anna.address.rpartition("@")[2]
    bert = await live_site.person("bert", domain=domain)
    alias = f"sales@{domain}"
    assert not isinstance(await live_site.site.execute(ACTOR, AddAlias(alias, (anna.address,))), Refusal)
    view = Slow(live_site.parts.database)
    directory = Directory(view, live_site.parts.hub)

    async def moved() -> None:
        for command in (RemoveAlias(alias), AddAlias(alias, (bert.address,))):
            assert not isinstance(await live_site.site.execute(ACTOR, command), Refusal)

    view.meanwhile = moved
    await directory.resolve(alias)  # asked before the change: either answer is true
    assert (await directory.resolve(alias)).accounts == (bert.id,)


async def test_names_that_nobody_has_do_not_fill_the_memory(
    live_site: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.directory, "NAMES_KEPT_MAX", 10)
    person = await live_site.person()
    directory = Directory(live_site.parts.directory_view, live_site.parts.hub)
    kept: list[int] = []

    def counted(known: Slice) -> Resolution | Missing:
        kept.append(len(known.domains) + len(known.entries))
        return resolve(known, address)

    for n in range(40):
        address = f"nobody@unknown{n}.example"
        await directory.ask(counted)
    assert max(kept) <= 10 + 2
    # Who is there is found all the same.
    assert (await directory.resolve(person.address)).accounts == (person.id,)
