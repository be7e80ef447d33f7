"""Two clients on one mailbox: who idles is woken, who asks is told, and nothing is told when the standard forbids it."""

import statistics
import threading
from queue import Queue
from time import perf_counter
from typing import Any

import pytest

from tests.clients.place import Person, Place

pytestmark = pytest.mark.usefixtures("imapclient")

MESSAGE = b"From: a@example.org\r\nSubject: news\r\n\r\nx\r\n"
ROUNDS = 30
WAKE_S_MAX = 1.0


def test_idle_wakes_within_a_second(place: Place, person: Person, record_property: Any) -> None:
    """From before the APPEND is sent until the idling client holds EXISTS. The line that is printed gives p50 and the worst."""
    woken: Queue[float] = Queue()
    with place.imap(person) as idling, place.imap(person) as writing:
        idling.idle()

        def listen() -> None:
            for _ in range(ROUNDS):
                while not any(news[1:] == (b"EXISTS",) for news in idling.idle_check(timeout=30)):
                    pass
                woken.put(perf_counter())

        listener = threading.Thread(target=listen)
        listener.start()
        took = []
        for _ in range(ROUNDS):
            start = perf_counter()
            writing.append("INBOX", MESSAGE)
            took.append(woken.get(timeout=30) - start)
        listener.join()
        idling.idle_done()
    line = f"p50 {statistics.median(took) * 1000:.1f} ms, worst {max(took) * 1000:.1f} ms over {ROUNDS}"
    record_property("client IDLE wake-up after APPEND", line)
    print(line)
    assert statistics.median(took) < WAKE_S_MAX


def test_flags_of_the_other_are_seen(place: Place, person: Person) -> None:
    place.append(person, [MESSAGE] * 3)
    with place.imap(person) as one, place.imap(person) as two:
        one.add_flags([2], [b"\\Flagged", b"$Label1"])
        _, told = two.noop()
        changed = {news[0]: {word.lower() for word in flags(news)} for news in told if news[1] == b"FETCH"}
        assert changed == {2: {b"\\flagged", b"$label1"}}
        two.remove_flags([2], [b"\\Flagged"])
        one.noop()
        assert b"\\Flagged" not in one.get_flags([2])[2]


def flags(news: tuple[Any, ...]) -> list[bytes]:
    """Of an untagged FETCH, without \\Recent."""
    items = news[2]
    return [word for word in items[items.index(b"FLAGS") + 1] if word != b"\\Recent"]


def test_expunge_waits_for_its_moment_and_content_outlives_it(place: Place, person: Person) -> None:
    """RFC 9051 §7.5.1: no EXPUNGE while FETCH, STORE or SEARCH is answered; what the other still holds is still given."""
    place.append(person, [MESSAGE + b"%d\r\n" % n for n in range(4)])
    with place.imap(person) as one, place.imap(person) as two:
        two.capabilities()  # which imapclient would ask later, and hear of the EXPUNGE then
        one.delete_messages([2, 3])
        one.expunge()
        two.use_uid = False
        fetched = two.fetch([2, 3, 4], ["BODY[]"])
        assert fetched[2][b"BODY[]"] == MESSAGE + b"1\r\n"
        assert fetched[4][b"BODY[]"] == MESSAGE + b"3\r\n"
        two.add_flags([4], [b"\\Seen"])
        assert 4 in two.search("ALL")
        _, told = two.noop()
        assert [news for news in told if news[1] == b"EXPUNGE"] == [(3, b"EXPUNGE"), (2, b"EXPUNGE")]
        assert two.search() == [1, 2]
        assert two.fetch([2], ["BODY[]"])[2][b"BODY[]"] == MESSAGE + b"3\r\n"


def test_two_who_expunge_the_same(place: Place, person: Person) -> None:
    place.append(person, [MESSAGE] * 6)
    with place.imap(person) as one, place.imap(person) as two:
        one.delete_messages([1, 2, 3])
        two.delete_messages([3, 4])
        one.expunge()
        two.expunge()
        one.noop()
        assert one.search() == two.search() == [5, 6]
        two.append("INBOX", MESSAGE)
        one.noop()
        assert one.search() == [5, 6, 7]


def test_a_mailbox_deleted_under_the_other(place: Place, person: Person) -> None:
    with place.imap(person) as one, place.imap(person) as two:
        one.create_folder("Short")
        two.select_folder("Short")
        one.delete_folder("Short")
        one.create_folder("Short")
        with pytest.raises(Exception, match="(?i)deleted|bye|closed|EOF"):
            two.noop()
            two.noop()
        assert one.select_folder("Short")[b"UIDNEXT"] == 1
