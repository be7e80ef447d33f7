"""Connections to the site's database.

`live` holds the tables made from the log, `site` what belongs to this site alone. While a rebuild runs, `next` stands
beside `live` and takes its place at the end.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

CONNECT_S_MAX = 4.0
QUERY_S_MAX = 8.0  # of a session's question: then its client hears that it may try again
RELEASE_S_MAX = 1.0  # for the engine to give up a question
FOLD_S_MAX = 120.0  # of a statement of who keeps a connection: one event may copy a whole mailbox
POOL_CONNECTIONS_MAX = 12
HELD_S = 20.0  # unused; then the library's pool has it, which ends it a while later
RETRY_S = 0.2
LISTENER_ASKED_EVERY_S = 15.0
CHANNEL = "angarium"

if TYPE_CHECKING:
    Plain = asyncpg.Connection[asyncpg.Record]
    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:  # the library's classes take no parameters at run time
    Plain = Connection = Pool = object
Listener = Callable[[str], None]


class Behind(Exception):
    """The database answers, but stands where it was before what its clients were already shown."""


# What says that the database is away or was restarted, not that the question was wrong.
AWAY = (
    OSError,
    TimeoutError,
    Behind,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the line broke in the middle of an answer
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.DiskFullError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.TransactionRollbackError,  # a deadlock, say: the same again goes through
)

# What an event's own data brings about, at every site alike.
# Limits are of the same kind: a name too long for an index is so everywhere.
DETERMINISTIC = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)

# What says that a statement took longer than its limit.
SLOW = (TimeoutError, asyncpg.QueryCanceledError)

log = structlog.get_logger("postgres")


async def _keep_session_state(_connection: Any) -> None:
    """In place of the pool's reset query: nothing here leaves session state behind, and a round trip is saved."""


class Database:
    """The pool and the listener. Connections are held for a while after their use. `start` waits until the database answers.
    `admit` looks at each new connection of the pool before it serves, and raises Behind where it must not."""

    def __init__(
        self,
        url: str,
        *,
        schema: str = "live",
        connections_max: int = POOL_CONNECTIONS_MAX,
        admit: "Callable[[Connection], Awaitable[None]] | None" = None,
    ) -> None:
        self.url = url
        self.schema = schema
        self._connections_max = connections_max
        self._admit = admit
        self._closed_until = 0.0  # by the loop's clock
        self._pool: Pool | None = None
        self._room = asyncio.Semaphore(connections_max)
        self._held: list[tuple[float, PoolConnectionProxy[asyncpg.Record]]] = []  # since when, the last used last
        self._letting_go: asyncio.Task[None] | None = None

    async def start(self, timeout_s: float = 60.0) -> None:
        """Raises TimeoutError when the database does not answer in time."""
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    await prepare(self.url)
                    self._pool = await asyncpg.create_pool(
                        self.url,
                        min_size=0,
                        max_size=self._connections_max,
                        timeout=CONNECT_S_MAX,
                        command_timeout=QUERY_S_MAX,
                        init=self._look,
                        reset=_keep_session_state,
                        max_inactive_connection_lifetime=60.0,
                        server_settings=settings(self.schema),
                    )
                    return
                except AWAY as error:
                    log.info("database not ready", error=type(error).__name__)
                    await asyncio.sleep(RETRY_S)

    async def _look(self, connection: Any) -> None:
        if self._admit is not None:
            try:
                await self._admit(connection)
            except BaseException as error:
                connection.terminate()  # the pool would wait for a polite end
                if isinstance(error, Behind):  # Clients that try again must not cost what it needs for catching up.
                    self._closed_until = asyncio.get_running_loop().time() + RETRY_S
                raise

    async def stop(self) -> None:
        pool, self._pool = self._pool, None  # what is at work is given back to it, and not held
        if self._letting_go is not None:
            self._letting_go.cancel()
        if pool is None:
            return
        try:
            async with asyncio.timeout(5):
                while self._held:
                    await pool.release(self._held.pop()[1], timeout=RELEASE_S_MAX)
                await pool.close()
        except TimeoutError:
            pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """For some quick statements: it ends after QUERY_S_MAX and a little. Raises one of AWAY."""
        if self._pool is None:
            raise asyncpg.InterfaceError("the database is not open")
        if asyncio.get_running_loop().time() < self._closed_until:
            raise Behind("the database stands where it was before, and catches up")
        if self._room.locked():  # much is asked at once: it takes its turn
            async with asyncio.timeout(QUERY_S_MAX):
                await self._room.acquire()
        else:
            await self._room.acquire()
        try:
            connection = await self._taken(self._pool)
            whole = False
            try:
                # Also around the end of a transaction, which would wait without limit for the engine to give up its question.
                async with asyncio.timeout(QUERY_S_MAX + RELEASE_S_MAX):
                    yield connection
                whole = True
            finally:
                if whole and self._pool is not None and _is_open(connection):
                    self._hold(connection)
                else:
                    await self._give_back(connection)
        finally:
            self._room.release()

    async def _taken(self, pool: "Pool") -> "PoolConnectionProxy[asyncpg.Record]":
        """One that was used just now, if there is one: through the library's pool each question would cost three times as
        much. Raises one of AWAY."""
        while self._held:
            _, connection = self._held.pop()
            if _is_open(connection):
                return connection
            await self._give_back(connection)
        return await pool.acquire(timeout=CONNECT_S_MAX)

    def _hold(self, connection: "PoolConnectionProxy[asyncpg.Record]") -> None:
        self._held.append((asyncio.get_running_loop().time(), connection))
        if self._letting_go is None:
            self._letting_go = asyncio.create_task(self._let_go())

    async def _let_go(self) -> None:
        """Those that nobody needs any more, until none is held."""
        try:
            while self._held:
                await asyncio.sleep(HELD_S)
                unused = asyncio.get_running_loop().time() - HELD_S
                while self._held and self._held[0][0] <= unused:
                    await self._give_back(self._held.pop(0)[1])
        finally:
            self._letting_go = None

    async def _give_back(self, connection: "PoolConnectionProxy[asyncpg.Record]") -> None:
        if self._pool is not None:
            await self._pool.release(connection, timeout=RELEASE_S_MAX)

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        async with self.connection() as connection:
            return await connection.fetch(query, *args)

    async def row(self, query: str, *args: Any) -> asyncpg.Record | None:
        async with self.connection() as connection:
            return await connection.fetchrow(query, *args)

    async def run(self, query: str, *args: Any) -> str:
        async with self.connection() as connection:
            return await connection.execute(query, *args)

    async def own(self) -> Plain:
        """A connection outside of the pool, for who keeps one for long (projector, listener)."""
        return await asyncpg.connect(
            self.url, timeout=CONNECT_S_MAX, command_timeout=FOLD_S_MAX, server_settings=settings(self.schema)
        )

    async def listen(self, told: Listener, lost: Callable[[Connection], Awaitable[None]]) -> None:
        """Calls `told` with each notification, for ever. `lost` after each (re)connection, with that connection:
        notifications may have been missed."""
        while True:
            ended = asyncio.Event()
            try:
                connection = await self.own()
            except AWAY:
                await asyncio.sleep(RETRY_S)
                continue
            try:
                connection.add_termination_listener(lambda _c, ended=ended: ended.set())
                await connection.add_listener(CHANNEL, lambda _c, _pid, _channel, payload: told(str(payload)))
                await lost(connection)
                while not ended.is_set():
                    try:
                        async with asyncio.timeout(LISTENER_ASKED_EVERY_S):
                            await ended.wait()
                    except TimeoutError:
                        # A line that was cut without a word tells nothing by itself.
                        await connection.fetchval("SELECT 1", timeout=CONNECT_S_MAX)
            except AWAY as error:
                log.info("listener lost the database", error=type(error).__name__)
            finally:
                connection.terminate()
            await asyncio.sleep(RETRY_S)


def _is_open(connection: "PoolConnectionProxy[asyncpg.Record]") -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:  # it ended, and the library's pool has it back already
        return False


def settings(schema: str) -> dict[str, str]:
    return {"search_path": f"{schema},site", "application_name": "angarium", "jit": "off", "statement_timeout": "120s"}


async def prepare(url: str) -> None:
    """Makes the schemas where they are missing; several workers may try at once."""
    connection = await asyncpg.connect(url, timeout=CONNECT_S_MAX)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(4242)")
            await connection.execute("CREATE SCHEMA IF NOT EXISTS site")
            await connection.execute("SET LOCAL search_path TO site")
            await connection.execute(sql("site"))
            if not await connection.fetchval("SELECT 1 FROM pg_namespace WHERE nspname = 'live'"):
                await make_tables(connection, "live")
            else:
                await connection.execute("SET LOCAL search_path TO live")
                await connection.execute(sql("later"))
    finally:
        await connection.close()


async def make_tables(connection: Any, schema: str) -> None:
    """Within the caller's transaction."""
    await connection.execute(f"CREATE SCHEMA {schema}")
    await connection.execute(f"SET LOCAL search_path TO {schema}")
    await connection.execute(sql("tables"))


def sql(name: str) -> str:
    return resources.files("storage.postgres").joinpath(f"schema/{name}.sql").read_text()
