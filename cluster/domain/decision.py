"""What decide answers when it does not refuse, and what evolve answers when a fact has no meaning."""

import msgspec


class Decision(msgspec.Struct, frozen=True):
    """`events`: facts of this noun, each with its entity (an account's id, a domain's name…), in order; may be empty.
    `depends`: the keys that must not have changed since the state was read. `modified`: UIDs passed over by a
    conditional command (RFC 7162 §3.1.3), as ranges."""

    events: tuple[tuple[str, msgspec.Struct], ...] = ()
    depends: tuple[str, ...] = ()
    modified: tuple[tuple[int, int], ...] = ()


class Unappliable(msgspec.Struct, frozen=True):
    """The event has no meaning in this state: it is quarantined, the same at every site, and nothing is changed."""

    why: str
