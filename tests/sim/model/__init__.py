"""The failover rules as a small seeded model: one partition, one mailbox, three sites, a control plane, two clients.

`rules` and `fold` are what the real code follows, function by function; `site`, `home`, `copies`, `clients` and `faults`
are the steps that may happen, in any order; `checks` is what must never be seen; `walk` draws, shrinks and replays.
"""
