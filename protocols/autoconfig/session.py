"""From an HTTP request to its answer. The one place of this language that knows aiohttp's requests and responses."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from protocols.autoconfig.commands import outlook, thunderbird
from protocols.autoconfig.model import REQUEST_BYTES_MAX, Answer, Door

__all__ = ["Door", "add_routes"]

THUNDERBIRD = ("/.well-known/autoconfig/mail/config-v1.1.xml", "/mail/config-v1.1.xml")
# Outlook writes it as it likes: Autodiscover/Autodiscover.xml, AutoDiscover/AutoDiscover.xml.
OUTLOOK = "/{place:(?i:autodiscover/autodiscover[.]xml)}"
BODY_S_MAX = 30.0


def add_routes(app: web.Application, door: Callable[[], Door]) -> None:
    """`door` is asked at each request: the sites may have become others."""

    async def configuration(request: web.Request) -> web.Response:
        address = request.query.get("emailaddress", "")
        return _xml(await thunderbird.configuration(door(), address, request.host))

    async def settings(request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BODY_S_MAX):
                data = await _read(request)
        except TimeoutError:
            return web.Response(status=408)  # RFC 9110 §15.5.9
        return _xml(await outlook.settings(door(), data))

    async def looked_at(request: web.Request) -> web.Response:
        place = None if request.secure else outlook.elsewhere(door())
        if place is not None:
            return web.Response(status=302, headers={"Location": place})  # RFC 9110 §15.4.3
        return _xml(outlook.looked_at(door()))

    for path in THUNDERBIRD:
        app.router.add_get(path, configuration)
    app.router.add_get(OUTLOOK, looked_at)
    app.router.add_post(OUTLOOK, settings)


async def _read(request: web.Request) -> bytes:
    """At most one byte more than is taken, which the parser then refuses."""
    data = bytearray()
    while len(data) <= REQUEST_BYTES_MAX and (chunk := await request.content.read(REQUEST_BYTES_MAX + 1 - len(data))):
        data += chunk
    return bytes(data)


def _xml(answer: Answer) -> web.Response:
    return web.Response(body=answer.body, status=answer.status, content_type="text/xml", charset="utf-8")
