"""How people say and read quotas: sizes with units, `none` for no limit, `domain` for what the domain has."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
NONE, DOMAIN = "none", "domain"
_SIZE = re.compile(r"(\d{1,16})(?:\.(\d{1,3}))?\s*(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB|K|M|G|T)?", re.IGNORECASE)


def quota_options(words: str) -> Callable[[F], F]:
    """Adds the three, given to the verb as `quota`, `quota_messages` and `quota_soft`. `words`: what may stand in place of
    a number."""

    def add(function: F) -> F:
        for name, metavar, text in (
            ("--quota-soft", "PERCENT[,…]", "Where it counts as filling up: warned and logged."),
            ("--quota-messages", "NUMBER", "How many messages the mailboxes may hold."),
            ("--quota", "SIZE", "How much they may hold, like 10GiB."),
        ):
            function = click.option(name, default=None, metavar=metavar, help=f"{text} Or {words}.")(function)
        return function

    return add


def wanted(given: Mapping[str, str | None]) -> dict[str, object]:
    """The API's fields of those options that were given. Raises UsageError."""
    fields: dict[str, object] = {}
    for option, field, read in (
        ("quota", "quota_storage_bytes", _size),
        ("quota_messages", "quota_messages", _number),
        ("quota_soft", "quota_soft_percent", _percentages),
    ):
        text = given[option]
        if text is not None:
            fields[field] = None if text == DOMAIN else read("0" if text == NONE else text)
    return fields


def shown(item: Mapping[str, Any]) -> str:
    """What an account, or those of a domain, may hold."""
    limits = [size(item["quota_storage_bytes"])] if item["quota_storage_bytes"] else []
    limits += [f"{item['quota_messages']} messages"] if item["quota_messages"] else []
    if not limits:
        return "none"
    soft = ", ".join(f"{percent}%" for percent in item["quota_soft_percent"])
    return ", ".join(limits) + (f"; filling up at {soft}" if soft else "")


def shown_of_account(item: Mapping[str, Any]) -> str:
    """And how full it is, and whose word that is."""
    limits = shown(item)
    if limits == "none":
        return limits
    used = "" if item["used_percent"] is None else f"{item['used_percent']}% used, "
    reached = f" reached {', '.join(f'{percent}%' for percent in item['reached_percent'])}" if item["reached_percent"] else ""
    return f"{used}of {limits}{reached} ({'its own' if item['quota_own'] else 'by its domain'})"


def size(count: float) -> str:
    for unit in UNITS:
        if count < 1024 or unit == UNITS[-1]:
            break
        count /= 1024
    return f"{count:.{0 if unit == 'B' else 1}f} {unit}"


def _size(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise click.UsageError(f"--quota is a size like 10GiB, 500MiB or none, not {text!r}")
    unit = (found[3] or "B").upper()
    step = 1000 if unit.endswith("B") and len(unit) == 2 else 1024
    return int(Decimal(f"{found[1]}.{found[2] or 0}") * step ** "BKMGT".index(unit[0]))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise click.UsageError(f"--quota-messages is a number or none, not {text!r}")
    return int(text)


def _percentages(text: str) -> list[int]:
    if text == "0":
        return []
    parts = [part.strip().removesuffix("%") for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise click.UsageError(f"--quota-soft is a percentage or several, like 80%,95%, or none, not {text!r}")
    return sorted({int(part) for part in parts})
