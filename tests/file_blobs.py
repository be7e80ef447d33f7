"""Blobs in files alone, as releases kept them before small ones were rows (storage/blobs/disk.py)."""

import time
from collections.abc import Callable
from pathlib import Path

from storage.blobs.disk import READ_THREADS
from storage.blobs.files import FileShelf
from storage.blobs.shelf import ShelvedBlobs


class FileBlobs(ShelvedBlobs):
    def __init__(self, root: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.files = FileShelf(root)
        super().__init__(self.files, READ_THREADS, monotonic)
