"""The log: a partition's events, in order, for ever. NATS is imported here (and in cluster/control) only.

`model.py` holds the shapes and the port `Log`; `memory.py` a log in memory with the same contract, for laws and simulation;
`jetstream.py`, `appender.py`, `follow.py` the real one; `copier.py` keeps a copy of what is at home at another site.
"""
