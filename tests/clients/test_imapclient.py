"""imapclient, word by word: what Python programs that read mail use."""

from typing import Any

import pytest
from imapclient import IMAPClient
from imapclient.exceptions import CapabilityError, IMAPClientError
from imapclient.imapclient import MailboxQuotaRoots, Quota

from tests.clients.place import Person, Place

pytestmark = pytest.mark.usefixtures("imapclient")

FIRST = b"From: a@example.org\r\nSubject: =?utf-8?q?M=C3=BCnchen?=\r\n\r\nGr\xc3\xbc\xc3\x9fe\r\n"
SECOND = b"From: b@example.org\r\nSubject: plain\r\n\r\nplain text\r\n"


def test_id_namespace_and_enable(place: Place, person: Person) -> None:
    with place.imap(person) as client:
        assert {b"IMAP4REV1", b"IMAP4REV2"} <= set(client.capabilities())
        (identity,) = client.id_({"name": "a test"})
        assert identity[identity.index(b"name") + 1] == b"Angarium"
        assert client.namespace() == ((("", "/"),), (("Other Users/", "/"),), (("Shared/", "/"),))
        client.unselect_folder()
        assert client.enable("CONDSTORE", "QRESYNC", "NONSENSE") == [b"CONDSTORE", b"QRESYNC"]
        assert client.folder_status("INBOX", ["HIGHESTMODSEQ"])[b"HIGHESTMODSEQ"] >= 0


def test_special_use(place: Place, person: Person) -> None:
    with place.imap(person) as client:
        for flag, name in ((b"\\Sent", "Sent"), (b"\\Drafts", "Drafts"), (b"\\Trash", "Trash"), (b"\\Junk", "Junk")):
            assert client.find_special_folder(flag) == name
        assert client.find_special_folder(b"\\Archive") == "Archive"
        assert client.find_special_folder(b"\\All") is None
        assert len(client.list_sub_folders()) == 6


def test_what_is_not_offered_is_not_there(place: Place, person: Person) -> None:
    with place.imap(person) as client, pytest.raises(CapabilityError):
        client.xlist_folders()


def test_rights_of_a_mailbox(place: Place, person: Person) -> None:
    with place.imap(person) as client:
        assert client.getacl("INBOX") == [(person.address.encode(), b"lrswipkxteacd")]


def test_quota(place: Place, person: Person) -> None:
    with place.imap(person) as client:
        assert client.get_quota_root("INBOX") == (MailboxQuotaRoots("INBOX", []), [])
        place.ask("PATCH", f"accounts/{person.address}", {"quota_storage_bytes": 4096, "quota_messages": 2})
        while not (quotas := client.get_quota()):  # as soon as the site's processes have all heard of it
            pass
        root = person.address
        assert quotas == [Quota(root, "STORAGE", 0, 4), Quota(root, "MESSAGE", 0, 2)]
        for _ in range(2):
            client.append("INBOX", FIRST)
        assert client.get_quota() == [Quota(root, "STORAGE", 1, 4), Quota(root, "MESSAGE", 2, 2)]
        with pytest.raises(IMAPClientError, match="OVERQUOTA"):
            client.append("INBOX", SECOND)
        with pytest.raises(IMAPClientError, match="NOPERM"):
            client.set_quota([Quota(root, "STORAGE", 0, 1000)])


def test_sort_and_thread(place: Place, person: Person) -> None:
    answer = b"Subject: Re: plain\r\nMessage-ID: <3@x>\r\nIn-Reply-To: <2@x>\r\n\r\n"
    place.append(person, [FIRST, b"Message-ID: <2@x>\r\n" + SECOND, answer])
    with place.imap(person) as client:
        assert client.sort(["REVERSE SIZE"]) == [2, 1, 3]
        assert client.sort("SUBJECT", ["NOT", "SUBJECT", "München"], "UTF-8") == [2, 3]
        assert client.thread("REFERENCES") == ((1,), (2, 3))


def test_search_in_charsets(place: Place, person: Person) -> None:
    place.append(person, [FIRST, SECOND])
    with place.imap(person) as client:
        assert client.search(["SUBJECT", "MÜNCHEN"], "UTF-8") == [1]
        assert client.search(["TEXT", "grüße"], "UTF-8") == [1]
        assert client.search(["NOT", "SUBJECT", "münchen"], "UTF-8") == [2]
        assert client.search("ALL") == [1, 2]
        with pytest.raises(IMAPClientError, match="BADCHARSET"):
            client.search(["SUBJECT", "x"], "EBCDIC-CP-BE")


def test_move_and_copy(place: Place, person: Person) -> None:
    place.append(person, [FIRST, SECOND])
    with place.imap(person) as client:
        client.copy([1, 2], "Archive")
        client.move([1], "Trash")
        assert client.search() == [2]
        client.noop()
        assert [place.count(client, name) for name in ("INBOX", "Archive", "Trash")] == [1, 2, 1]
        client.select_folder("Trash")
        assert client.fetch([1], ["BODY[]"])[1][b"BODY[]"] == FIRST
        with pytest.raises(IMAPClientError, match="TRYCREATE"):
            client.move([1], "Nowhere")


def test_condstore(place: Place, person: Person) -> None:
    place.append(person, [FIRST, SECOND])
    with place.imap(person) as client:
        client.unselect_folder()
        client.enable("CONDSTORE")
        start = client.select_folder("INBOX")[b"HIGHESTMODSEQ"]
        client.add_flags([2], [b"\\Flagged"])
        changed = client.fetch([1, 2], ["FLAGS"], [f"CHANGEDSINCE {start}"])
        assert list(changed) == [2] and changed[2][b"FLAGS"] == (b"\\Flagged",)
        (modseq,) = changed[2][b"MODSEQ"]
        assert modseq > start
        found = client.search(["MODSEQ", str(modseq)])
        assert list(found) == [2] and found.modseq == modseq
        assert client.folder_status("INBOX", ["HIGHESTMODSEQ"])[b"HIGHESTMODSEQ"] >= modseq


def test_idle_tells_of_mail_flags_and_expunges(place: Place, person: Person) -> None:
    place.append(person, [FIRST])
    with place.imap(person) as idling, place.imap(person) as other:
        idling.idle()
        place.deliver(person, SECOND)
        assert (2, b"EXISTS") in told(idling, b"EXISTS")
        other.noop()
        other.add_flags([1], [b"\\Answered"])
        (fetched,) = (news for news in told(idling, b"FETCH") if news[1] == b"FETCH")
        assert fetched[0] == 1 and b"\\Answered" in fetched[2][fetched[2].index(b"FLAGS") + 1]
        other.delete_messages([1])
        other.expunge()
        assert (1, b"EXPUNGE") in told(idling, b"EXPUNGE")
        idling.idle_done()
        assert idling.search() == [2]


def told(client: IMAPClient, word: bytes) -> list[Any]:
    """What an idling client hears, until a response of that word is among it."""
    heard: list[Any] = []
    while not any(len(news) > 1 and news[1] == word for news in heard):
        news = client.idle_check(timeout=30)
        assert news, f"no {word!r} within 30 s, but {heard}"
        heard += news
    return heard


def test_folders_with_difficult_names(place: Place, person: Person) -> None:
    names = [
        'a "quoted" name', "back\\slash", "Entwürfe & Ideen", "日本語/メール", "emoji \N{GRINNING FACE}", "a (really)",
        "-", "{12}", "&", "a&-b", "x" * 200, "deep/er/and/deeper", "it's",
    ]  # fmt: skip
    with place.imap(person) as client:
        for name in names:
            client.create_folder(name)
            client.append(name, SECOND)
            assert client.select_folder(name)[b"EXISTS"] == 1
        listed = {name for _, _, name in client.list_folders()}
        assert set(names) <= listed
        for name in names:
            client.rename_folder(name, f"{name} (old)")
            assert place.count(client, f"{name} (old)") == 1
            client.delete_folder(f"{name} (old)")
        listed = {name for _, _, name in client.list_folders()}
        assert not any("(old)" in name for name in listed)


def test_keywords_and_flag_words(place: Place, person: Person) -> None:
    place.append(person, [FIRST, SECOND])
    with place.imap(person) as client:
        client.add_flags([1, 2], [b"$Forwarded", b"mylabel"])
        client.remove_flags([1], [b"mylabel"])
        client.set_flags([2], [b"\\Draft"])
        flags = client.get_flags([1, 2])
        assert {n: set(words) - {b"\\Recent"} for n, words in flags.items()} == {1: {b"$Forwarded"}, 2: {b"\\Draft"}}
        assert client.search(["KEYWORD", "$Forwarded"]) == [1]
        client.add_flags([1], [b"\\Seen"], silent=True)
        assert client.search("UNSEEN") == [2]
