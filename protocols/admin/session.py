"""From an HTTP request to its answer: admitted, decoded by its route's types, handled, encoded. The one place that knows
aiohttp's requests and responses.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
import structlog
from aiohttp import web

from cluster.domain.actor import Actor
from cluster.domain.refusal import Reason, Refusal
from protocols.admin.door import Call, Door
from protocols.admin.errors import Fault, of_fault, of_invalid, of_refusal
from protocols.admin.gate import Gate, admit, trusted
from protocols.admin.health import Health
from protocols.admin.metrics import CONTENT_TYPE, Metrics
from protocols.admin.model import BODY_BYTES_MAX, IMPORT_BYTES_MAX, Problem
from protocols.admin.moving import MESSAGES_TYPE
from protocols.admin.openapi import CSV, JSON, LINES, PROBLEM, document
from protocols.admin.routes import JOIN_PATH, ME_PATH, PREFIX, ROUTES, Route
from protocols.admin.streams import closed
from storage.credentials import CredentialsBusy

BODY_S_MAX = 60.0
FIRST_LINE_S_MAX = 0.25
KEEPALIVE_S = 15.0
WRITE_S_MAX = 60.0
READ_BYTES = 64 * 1024

log = structlog.get_logger("admin")
_encoder = msgspec.json.Encoder()

ACTOR = web.RequestKey("actor", Actor)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Parts(NamedTuple):
    """What an application is made of. `version`: of this release."""

    door: Door
    gate: Gate
    metrics: Metrics
    health: Health
    version: str


def application(parts: Parts) -> web.Application:
    """All routes of the table, and beside them /, /healthz, /readyz and /metrics."""
    app = web.Application(middlewares=[_guard(parts)])
    closing = asyncio.Event()

    async def close(_: web.Application) -> None:
        closing.set()

    app.on_shutdown.append(close)
    for route in ROUTES:
        app.router.add_route(route.method, PREFIX + route.path, _handler(parts.door, route, closing))
    described = _encoder.encode(document(parts.version))
    for path, handler in _plain_pages(parts, described).items():
        app.router.add_get(path, handler)
    return app


def _plain_pages(parts: Parts, described: bytes) -> dict[str, Handler]:
    async def front(_: web.Request) -> web.Response:
        text = (
            f"Angarium, site {parts.gate.site}\n\n"
            f"{PREFIX}/openapi.json  what can be asked here, with the site's token\n"
            "/healthz /readyz      is it alive, is it of use\n"
            "/metrics              numbers for Prometheus\n"
        )
        return web.Response(text=text)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        readiness = await parts.health.readiness()
        return _json(readiness, 200 if readiness.ready else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=parts.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(_: web.Request) -> web.Response:
        return web.Response(body=described, content_type=JSON)

    return {
        "/": front,
        "/healthz": healthz,
        "/readyz": readyz,
        "/metrics": metrics,
        f"{PREFIX}/openapi.json": openapi,
    }


def _guard(parts: Parts) -> Any:
    """Lets in, counts, and turns whatever goes wrong into problem details."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        session = f"{parts.door.site.world.new_id():016x}"
        with structlog.contextvars.bound_contextvars(session=session):
            answer = await _admitted(parts, request, handler, session)
        resource = request.match_info.route.resource
        word = f"{request.method} {resource.canonical}" if resource is not None else "unknown"
        outcome = "ok" if answer.status < 400 else "refused" if answer.status < 500 else "failed"
        parts.metrics.requests.labels("admin", word, outcome).inc()
        return answer

    return guard


async def _admitted(parts: Parts, request: web.Request, handler: Handler, session: str) -> web.StreamResponse:
    try:
        open_page = not request.path.startswith("/api/") and (request.path != "/metrics" or trusted(parts.gate, request))
        if request.path == JOIN_PATH:
            if not trusted(parts.gate, request):
                return _problem(of_fault(Fault.INSECURE, "use https: a token may not be sent in the clear"))
            request[ACTOR] = Actor("join token", site=parts.gate.site, protocol="admin", address=request.remote or "", session=session)
        elif not open_page:
            actor = await admit(parts.gate, parts.door.site, request, session, of_a_person=request.path == ME_PATH)
            if isinstance(actor, Problem):
                log.warning("not admitted", reason=actor.reason, peer=request.remote, path=request.path)
                return _problem(actor)
            request[ACTOR] = actor
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        answer = _problem(of_fault(Fault.METHOD_NOT_ALLOWED, f"{request.path} takes {allowed}"))
        answer.headers["Allow"] = allowed  # RFC 9110 §15.5.6
        return answer
    except web.HTTPNotFound:
        return _problem(of_fault(Fault.NO_SUCH_ROUTE, f"there is nothing at {request.path}; see {PREFIX}/openapi.json"))
    except CredentialsBusy as error:
        return _problem(of_refusal(Refusal(Reason.UNAVAILABLE, f"{error}: try again in a while")))
    except ConnectionError:
        raise  # the client went; nobody is there to be told
    except Exception:
        log.exception("request failed", method=request.method, path=request.path)
        return _problem(of_fault(Fault.INTERNAL, f"the site's log says why, under session {session}"))


def _handler(door: Door, route: Route, closing: asyncio.Event) -> Handler:
    body = None if route.body in (None, str, bytes) else msgspec.json.Decoder(route.body)

    async def handle(request: web.Request) -> web.StreamResponse:
        query = _query(route, request)
        given = await _body(route, body, request)
        for problem in (query, given):
            if isinstance(problem, Problem):
                return _problem(problem)
        call = Call(request[ACTOR], dict(request.match_info), query, given)
        if route.streams is not None:
            return await _stream(request, route.streams(door, call), closing)
        assert route.answers is not None
        answer = await route.answers(door, call)
        if isinstance(answer, Refusal):
            return _problem(of_refusal(answer))
        if isinstance(answer, Problem):
            return _problem(answer)
        return web.Response(status=route.status) if answer is None else _json(answer, route.status)

    return handle


def _query(route: Route, request: web.Request) -> Any:
    """Text is read as the type that the route's query says; twice the same name is refused."""
    names = [name for name, _ in request.query.items()]
    if route.query is None:
        return of_fault(Fault.MALFORMED, f"unknown parameter {names[0]}", names[0]) if names else None
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        return of_fault(Fault.MALFORMED, f"parameter {twice} is given twice", twice)
    try:
        return msgspec.convert(dict(request.query), route.query, strict=False)
    except msgspec.ValidationError as error:
        return of_invalid(error)


async def _body(route: Route, decoder: "msgspec.json.Decoder[Any] | None", request: web.Request) -> Any:
    if route.body is None:
        return of_fault(Fault.MALFORMED, "no body is taken here") if request.can_read_body else None
    if route.body is bytes:
        if request.content_type != MESSAGES_TYPE:
            return of_fault(Fault.MEDIA_TYPE, f"send {MESSAGES_TYPE}, not {request.content_type}")
        return request.content.iter_chunked(READ_BYTES)
    kind, limit = (CSV, IMPORT_BYTES_MAX) if route.body is str else (JSON, BODY_BYTES_MAX)
    if request.content_type != kind:
        return of_fault(Fault.MEDIA_TYPE, f"send {kind}, not {request.content_type}")
    try:
        data = await asyncio.wait_for(_read(request, limit), BODY_S_MAX)
    except TimeoutError:
        return of_fault(Fault.MALFORMED, f"the body did not come in {BODY_S_MAX:.0f} s")
    if data is None:
        return of_fault(Fault.BODY_TOO_BIG, f"the body may have {limit} bytes")
    try:
        return data.decode() if decoder is None else decoder.decode(data)
    except UnicodeDecodeError:
        return of_fault(Fault.MALFORMED, "the file is not UTF-8")
    except msgspec.MsgspecError as error:
        return of_invalid(error)


async def _read(request: web.Request, limit: int) -> bytes | None:
    if (request.content_length or 0) > limit:
        return None
    data = bytearray()
    async for chunk in request.content.iter_chunked(READ_BYTES):
        data += chunk
        if len(data) > limit:
            return None
    return bytes(data)


async def _stream(request: web.Request, lines: AsyncIterator[Any], closing: asyncio.Event) -> web.StreamResponse:
    """A problem that is there at once has its own status; one that comes later is the last line."""
    ending = asyncio.create_task(closing.wait())
    line = asyncio.create_task(_next(lines))
    response = web.StreamResponse(headers={"Content-Type": LINES, "Cache-Control": "no-store"})
    async with closed(lines):
        try:
            await asyncio.wait((line, ending), timeout=FIRST_LINE_S_MAX, return_when=asyncio.FIRST_COMPLETED)
            if line.done() and isinstance(found := line.result(), Problem):
                return _problem(found)
            await response.prepare(request)
            while not ending.done():
                await asyncio.wait((line, ending), timeout=KEEPALIVE_S, return_when=asyncio.FIRST_COMPLETED)
                if not line.done():
                    if not ending.done():
                        await asyncio.wait_for(response.write(b"\n"), WRITE_S_MAX)  # an empty line: still there?
                    continue
                if (item := _told(line, request)) is None:
                    break
                await asyncio.wait_for(response.write(_encoder.encode(item) + b"\n"), WRITE_S_MAX)
                line = asyncio.create_task(_next(lines))
            await response.write_eof()
            return response
        except (ConnectionError, TimeoutError):
            log.info("nobody watches any more", path=request.path)
            return response
        finally:
            for task in (line, ending):
                task.cancel()
            await asyncio.gather(line, ending, return_exceptions=True)


async def _next(lines: AsyncIterator[Any]) -> Any:
    return await anext(lines, None)


def _told(line: "asyncio.Task[Any]", request: web.Request) -> Any:
    """The next line. Too late for another status: where the work broke down, that is the line."""
    error = line.exception()
    if error is None:
        return line.result()
    log.error("stream failed", method=request.method, path=request.path, exc_info=error)
    session = structlog.contextvars.get_contextvars().get("session", "")
    return of_fault(Fault.INTERNAL, f"the site's log says why, under session {session}")


def _json(answer: msgspec.Struct, status: int) -> web.Response:
    # Passwords pass here: no cache keeps them (RFC 9111 §5.2.2.5).
    return web.Response(body=_encoder.encode(answer), status=status, content_type=JSON, headers={"Cache-Control": "no-store"})


def _problem(problem: Problem) -> web.Response:
    response = web.Response(body=_encoder.encode(problem), status=problem.status, content_type=PROBLEM)
    if problem.status == 401:
        # RFC 9110 §11.6.1. Basic is taken and not offered, so that no browser asks people for passwords.
        response.headers["WWW-Authenticate"] = 'Bearer realm="angarium"'
    return response
