"""The long work of a running site, as its administration asks for it: what fails is told as a refusal."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

from cluster.domain.refusal import Reason, Refusal
from node.assembly import Assembly
from node.config import Config
from storage.archive import BackupFailed
from storage.backup import BackedUp, backup
from storage.overview import Progress
from storage.rebuild import RebuildFailed, rebuild

Steps = AsyncIterator[Progress | Refusal]


def backed_up(parts: Assembly, version: str) -> BackedUp:
    """What a backup of this site takes."""
    return BackedUp(
        parts.config.site,
        version,
        parts.world.now(),
        tuple(parts.kept),
        parts.log,
        parts.blobs,
        parts.hub.reached,
        config_files(parts.config),
    )


def config_files(config: Config) -> dict[str, Path]:
    """Name below the site's folder → file. What the configuration names outside of the folder is the operator's own."""
    tls = config.tls
    files = [config.dir / "angarium.toml", config.dir / "secrets.toml", config.demo_file]
    files += [tls.ca, tls.ca_key, tls.certificate, tls.key, tls.link_certificate, tls.link_key, config.roster_file]
    inside = [file for file in files if file.is_relative_to(config.dir) and file.exists()]
    return {str(file.relative_to(config.dir)): file for file in inside}


def rebuild_work(parts: Assembly) -> Callable[[], Steps]:
    return lambda: _refusing(rebuild(parts.database, parts.log, parts.kept))


def backup_work(parts: Assembly, version: str) -> Callable[[str], Steps]:
    def work(target: str) -> Steps:
        return _refusing(backup(Path(target), backed_up(parts, version)))

    return work


async def _refusing(steps: AsyncGenerator[Progress, None]) -> AsyncGenerator[Progress | Refusal, None]:
    try:
        async with aclosing(steps):
            async for step in steps:
                yield step
    except (RebuildFailed, BackupFailed) as error:
        yield Refusal(Reason.UNAVAILABLE, str(error))
