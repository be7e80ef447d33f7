"""The control plane: who holds what. Changed by compare-and-set only.

`bucket.py` a key-value bucket of the engine; `partitions.py` the partitions' records (home, epochs); `lease.py` who may
write a partition; `holder.py` which process that is. With one site the bucket is at the site, with a backbone there.
"""
