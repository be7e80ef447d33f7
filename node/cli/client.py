"""How the command line speaks to a running site: by its HTTP API, over TLS, with the token of the site's folder."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import click

from node.cli.shape import Complaint
from node.config import Config, ConfigRefused, load
from node.supervisor import running_pid

CONNECT_S_MAX = 10.0
ANSWER_S_MAX = 60.0
LINE_BYTES_MAX = 4 << 20
PAGE = 1000

JSON, CSV = "application/json", "text/csv"
T = TypeVar("T")


def run(directory: Path, work: "Callable[[Api], Awaitable[T]]") -> T:
    """Does `work` with the site of this folder. Raises Complaint where the site says no or says nothing."""
    try:
        config = load(directory)
    except ConfigRefused as error:
        raise Complaint(str(error)) from None

    async def connected() -> T:
        address, tls = _address(config)
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S_MAX, sock_read=ANSWER_S_MAX)
        headers = {"Authorization": f"Bearer {config.api_token}"}
        connector = aiohttp.TCPConnector(ssl=tls) if tls else aiohttp.TCPConnector()
        async with aiohttp.ClientSession(
            address,
            headers=headers,
            timeout=timeout,
            connector=connector,
            read_bufsize=LINE_BYTES_MAX,
        ) as http:
            return await work(Api(http, config.hostname if tls else None))

    try:
        return asyncio.run(connected())
    except aiohttp.ClientConnectorCertificateError as error:
        raise Complaint(
            f"the site's certificate is not trusted: {error.certificate_error}: run `angarium doctor`"
        ) from None
    except aiohttp.ClientSSLError as error:
        raise Complaint(f"no TLS with the site at {directory}: {error}: run `angarium doctor`") from None
    except aiohttp.ClientConnectorError:
        raise Complaint(_unreachable(config)) from None
    except (aiohttp.ClientError, TimeoutError) as error:
        said = str(error) or type(error).__name__
        raise Complaint(f"the site at {directory} stopped answering: {said}: run `angarium doctor`") from None


class Api:
    """The site's API. Paths are made by `path`."""

    def __init__(self, http: aiohttp.ClientSession, server_name: str | None) -> None:
        self._http = http
        self._server_name = server_name

    async def ask(self, method: str, path: str, body: object = None, **query: str | int) -> Any:
        """The answer as JSON says it; None where there is none, or where it is durable and cannot be shown yet (told on
        stderr). Raises Complaint."""
        async with self._request(method, path, query, body=body) as answer:
            text = await answer.read()
            if answer.status == 202:
                click.echo(f"angarium: {_detail(answer, text)}", err=True)
                return None
            if answer.status >= 400:
                raise _complaint(answer, text)
            return json.loads(text) if text else None

    async def pages(self, path: str, **query: str | int) -> list[Any]:
        """All items of a list, page by page."""
        items: list[Any] = []
        after = ""
        while True:
            page = await self.ask("GET", path, limit=PAGE, after=after, **query)
            items += page["items"]
            if page["next"] is None:
                return items
            after = page["next"]

    async def lines(self, method: str, path: str, body: object = None, **query: str | int) -> AsyncIterator[Any]:
        """Line by line, without the last one, `finished`, whose absence is complained of. Raises Complaint."""
        async with self._request(method, path, query, body=body) as answer:
            if answer.status != 200:
                raise _complaint(answer, await answer.read())
            async for raw in answer.content:
                if not raw.strip():
                    continue
                line = json.loads(raw)
                if line["kind"] == "finished":
                    return
                if line["kind"] == "problem":
                    raise Complaint(str(line["detail"]))
                yield line
        raise Complaint("the site stopped in the middle of it: look at it with `angarium doctor` and try again")

    async def send(self, path: str, kind: str, pieces: Sequence[bytes], **query: str | int) -> tuple[int, Any]:
        """Posts a body of that media type: the status, and the answer or the problem (RFC 9457) as JSON says it; {} where it
        is neither. Raises aiohttp.ClientError, TimeoutError."""

        async def body() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        more: dict[str, Any] = {"params": {name: str(value) for name, value in query.items()}}
        if self._server_name is not None:
            more |= {"server_hostname": self._server_name}
        async with self._http.post(path, data=body(), headers={"Content-Type": kind}, **more) as answer:
            text = await answer.read()
            try:
                return answer.status, json.loads(text) if text else {}
            except ValueError:
                return answer.status, {}

    def _request(self, method: str, path: str, query: dict[str, str | int], *, body: object) -> Any:
        more: dict[str, Any] = {"params": {name: str(value) for name, value in query.items()}}
        if isinstance(body, bytes):
            more |= {"data": body, "headers": {"Content-Type": CSV}}
        elif body is not None:
            more |= {"json": body}
        if self._server_name is not None:
            more |= {"server_hostname": self._server_name}
        return self._http.request(method, path, **more)


def path(*names: str) -> str:
    """A path of the API; names may hold any character (RFC 3986 §2.4: encoded once, here)."""
    return "/api/v1/" + "/".join(quote(name, safe="@:") for name in names)


def _unreachable(config: Config) -> str:
    pid = running_pid(config.run_dir)
    if pid is None:
        return f"the site at {config.dir} is not running: start it with `angarium up {config.dir}`"
    return f"the site at {config.dir} runs (pid {pid}) and does not answer yet: wait, or run `angarium --dir {config.dir} doctor`"


def _address(config: Config) -> tuple[str, ssl.SSLContext | None]:
    """Where this machine reaches the site's API, over TLS if the site offers it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.bind, config.bind)  # noqa: S104 (compared, not bound)
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    if config.ports.https:
        return f"https://{host}:{config.ports.https}", _context(config)
    if config.ports.http:
        return f"http://{host}:{config.ports.http}", None
    raise Complaint(f"{config.dir / 'angarium.toml'}: ports.https and ports.http are both 0: give https a port")


def _context(config: Config) -> ssl.SSLContext:
    """Trusts the site's own authority beside the machine's, since the operator may have put in a public certificate."""
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(config.tls.ca)
    except FileNotFoundError:
        return context
    except (OSError, ssl.SSLError) as error:
        raise Complaint(f"{config.tls.ca} cannot be read: {error}") from None
    return context


def _complaint(answer: aiohttp.ClientResponse, text: bytes) -> Complaint:
    return Complaint(_detail(answer, text))


def _detail(answer: aiohttp.ClientResponse, text: bytes) -> str:
    """RFC 9457 §3.1.4, or what there is instead."""
    try:
        problem = json.loads(text)
        field = f" (field {problem['field']})" if problem.get("field") else ""
        return f"{problem['detail']}{field}"
    except (ValueError, KeyError, TypeError):
        return f"the site answered {answer.status} {answer.reason}"
