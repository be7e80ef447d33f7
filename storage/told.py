"""What the log is told of an event beside its bytes: the keys that it changes, and how many UIDs it takes."""

from typing import Any

from cluster import codec
from cluster.domain.directory.events import changes as directory_changes
from cluster.domain.mailbox.events import changes as mailbox_changes
from cluster.domain.mailbox.events import uids_given
from cluster.domain.outbox.events import changes as outbox_changes
from cluster.log.model import NewEvent


def new_event(entity: str, event: Any, payload: bytes) -> NewEvent:
    noun = codec.noun_of(event)
    match noun:
        case "mailbox":
            return NewEvent(noun, entity, payload, mailbox_changes(int(entity), event), uids_given(event))
        case "directory":
            return NewEvent(noun, entity, payload, directory_changes(event))
        case _:
            return NewEvent(noun, entity, payload, outbox_changes(event))
