"""The administrator's door: HTTP/1.1 by aiohttp, JSON, one visible table of routes (routes.py).

Obeyed: RFC 9110 (HTTP semantics), RFC 6750 (bearer tokens), RFC 7617 (Basic, for an administrator's own password),
RFC 9457 (problem details), RFC 8259 (JSON), OpenAPI 3.1.0. Long work and the log answer with one JSON object a line, so
that whoever watches sees it happen.

Left out on purpose: cookies and forms (so no page of another site can act for an administrator), CORS, PUT of whole
resources (a change names what it changes). The document at /api/v1/openapi.json is made from the same table and the same
types as the routes themselves, so the two cannot differ.
"""
