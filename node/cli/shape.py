"""What all verbs share: how they take --json, how they answer, how they complain."""

import json
from collections.abc import Callable
from typing import IO, Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Complaint(click.ClickException):
    """An error that the operator can mend: one line that says what to do, exit code 1."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"angarium: {' '.join(self.message.split())}", file=file, err=file is None)


def json_option(function: F) -> F:
    """Adds `--json`, given to the verb as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Answer with JSON on standard output.")(function)


def answer(as_json: bool, value: object, text: str) -> None:
    """Prints one answer: `value` as one line of JSON, or `text` for people (nothing if empty)."""
    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False))
    elif text:
        click.echo(text)
