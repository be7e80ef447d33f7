"""The OpenAPI 3.1 document, made from the table of routes and the msgspec types that really decode and encode."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec

from protocols.admin.errors import STATUS, Fault
from protocols.admin.model import Problem
from protocols.admin.moving import MESSAGES_TYPE
from protocols.admin.routes import PREFIX, ROUTES, Route, variables

JSON, CSV, LINES, PROBLEM = "application/json", "text/csv", "application/x-ndjson", "application/problem+json"
PLAIN_BODIES: dict[Any, dict[str, Any]] = {
    str: {CSV: {"schema": {"type": "string"}}},
    bytes: {MESSAGES_TYPE: {"schema": {"type": "string", "format": "binary"}}},
}
REFS = "#/components/schemas/{name}"


def document(version: str, routes: Iterable[Route] = ROUTES) -> dict[str, Any]:
    table = tuple(routes)
    kinds = [kind for route in table for kind in (route.body, route.reply, route.query) if kind not in (None, str, bytes)]
    wanted = list(dict.fromkeys([*kinds, Problem]))
    schemas, components = msgspec.json.schema_components(wanted, ref_template=REFS)
    schema_of = dict(zip(wanted, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route, schema_of, components)
    for query in {route.query for route in table if route.query}:  # said as parameters, not as bodies
        components.pop(query.__name__, None)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Angarium administration", "version": version, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"basic": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }


def _operation(route: Route, schema_of: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    function = route.answers or route.streams
    assert function is not None
    noun = function.__module__.rpartition(".")[2]
    operation: dict[str, Any] = {
        "operationId": f"{noun}.{function.__name__}",
        "tags": [route.path.split("/")[1].split(":")[0]],
        "summary": route.summary,
        "parameters": [*_path_parameters(route), *_query_parameters(route, components)],
        "responses": {str(route.status): _success(route, schema_of)} | _failures(schema_of),
    }
    if route.body is not None:
        media = PLAIN_BODIES.get(route.body) or {JSON: {"schema": schema_of[route.body]}}
        operation["requestBody"] = {"required": True, "content": media}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in variables(route.path)
    ]


def _query_parameters(route: Route, components: dict[str, Any]) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    properties: dict[str, Any] = components[route.query.__name__]["properties"]
    return [{"name": name, "in": "query", "required": False, "schema": schema} for name, schema in properties.items()]


def _success(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    phrase = HTTPStatus(route.status).phrase
    if route.reply is None:
        return {"description": phrase}
    if route.streams is not None:
        return {"description": "One JSON object a line", "content": {LINES: {"schema": schema_of[route.reply]}}}
    return {"description": phrase, "content": {JSON: {"schema": schema_of[route.reply]}}}


def _failures(schema_of: dict[Any, Any]) -> dict[str, Any]:
    content = {PROBLEM: {"schema": schema_of[Problem]}}
    statuses = sorted({*STATUS.values(), *(fault.value[1] for fault in Fault)})
    return {
        str(int(HTTPStatus.ACCEPTED)): {"description": "Durable in the log, not yet shown", "content": content},
        "default": {"description": f"A problem: {', '.join(str(int(s)) for s in statuses)}", "content": content},
    }
