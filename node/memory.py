"""How the C library and the interpreter keep memory.

Large pieces of messages are asked for and given back all the time; glibc soon keeps
them in its heaps, between small things that stay, and gives nothing back: ten messages of 50 MiB cost 140 MiB more instead
of 80 (measured by PSS). So large pieces always come from the kernel and go back to it.
"""

import ctypes
import gc

M_MMAP_THRESHOLD = -3  # mallopt(3)
GARBAGE_OBJECTS = 50_000  # new ones, before the young are looked at
LARGE_BYTES_MIN = 256 << 10


def give_back_large_pieces() -> bool:
    """Before threads are started. False where the C library has no such setting."""
    try:
        return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES_MIN))
    except (AttributeError, OSError):
        return False


def collect_less_often() -> None:
    """When a worker begins to serve: what is there stays, and need not be looked at again. A mailbox of 100,000 messages
    is many small things at once, whose collection held the loop up longer than their making (48 ms, 19 ms without)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 20)
