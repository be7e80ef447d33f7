"""Days, as an operator types them."""

import datetime

import click


def midnight(date: str, option: str, otherwise: str = "") -> int:
    """Unix seconds when that day begins in UTC. `otherwise`: what else may be said, for who said neither."""
    try:
        found = datetime.datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=datetime.UTC)
    except ValueError:
        raise click.UsageError(f"{option} is a day like 2026-01-31{otherwise}, not {date!r}") from None
    return int(found.timestamp())
