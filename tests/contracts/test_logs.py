"""What is in a log line, and what is never there."""

import subprocess
import sys

import pytest

from tests.live import REPOSITORY

# A process of its own: logging is set up once for the whole of one.
PROGRAM = """
import logging, sys, structlog
from node import logs

logs.set_up("info", sys.argv[1], sys.stderr)

def sign_in(secret):
    raise ValueError("our bug")

for log in (structlog.get_logger("a"), logging.getLogger("library")):
    try:
        sign_in("correct " + "horse")
    except ValueError:
        log.exception("failed")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_trace_shows_where_it_happened_and_not_what_the_variables_held(form: str) -> None:
    ran = subprocess.run(
        (sys.executable, "-c", PROGRAM, form), cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert ran.stderr.count("ValueError: our bug") == 2 and "sign_in" in ran.stderr
    assert "correct horse" not in ran.stderr
