"""What the fuzzer once found worth keeping, and where it begins, goes through every target without a complaint."""

import pytest

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_kept_and_where_it_begins(target: str) -> None:
    for data in (*corpus.kept(target), *corpus.seeds(target, apart=not target.endswith("_session"))):
        try:
            TARGETS[target](data)
        except Exception as error:
            raise AssertionError(f"{target}: {data!r}") from error


def test_the_words_of_the_grammar_are_taken_up() -> None:
    assert {b"UNCHANGEDSINCE", b"CATENATE", b"FETCH", b"CHANGEDSINCE"} <= corpus.words("imap")
