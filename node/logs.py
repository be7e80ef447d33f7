"""Structured logs: one JSON object a line, or readable lines on a terminal. `structlog` does it, so that every line of
every part has the same shape and a session's id rides along (bind it by `structlog.contextvars.bound_contextvars`).

What goes by a secret's name is masked here, whoever logged it; message content and passwords are never logged at all.
"""

import logging
import sys
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

SECRET_WORDS = ("password", "passwd", "secret", "token", "authorization", "credential", "hmac", "verifier", "private")
MASK = "(secret)"


def set_up(level: str, form: Literal["auto", "json", "console"], stream: TextIO | None = None) -> None:
    """Once a process, before the first log line. `auto` is console on a terminal and JSON elsewhere."""
    out = stream or sys.stderr
    console = form == "console" or (form == "auto" and out.isatty())
    shape: Processor = structlog.processors.JSONRenderer()
    if console:
        # Not the default, which draws the variables of every function: passwords and messages too.
        shape = structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        mask_secrets,
    ]
    ends: list[Processor] = [] if console else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[*shared, *ends, shape],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # One write a line, newline included, so that lines of several processes do not run into each other.
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    # What libraries log by the standard module comes out in the same shape.
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ends, shape],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(logging.getLevelName(level.upper()), logging.INFO), force=True)


def mask_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Replaces the value of every key that names a secret."""
    for key in event:
        if any(word in key.lower() for word in SECRET_WORDS):
            event[key] = MASK
    return event
