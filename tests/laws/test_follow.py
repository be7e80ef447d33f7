"""What a follower is given at once is bounded as it is in memory, not as it lies packed in the log."""

import zstandard

from cluster.log.engine import Kept
from cluster.log.follow import CLEAR_BYTES_MAX, unpacked
from cluster.log.model import CHUNK_BYTES_MAX
from cluster.log.wire import CHUNK_HEADER, ENCODING_HEADER, HASH_HEADER, stream_of


def test_content_that_packs_well_comes_in_small_portions() -> None:
    stream = stream_of("mail", 1)
    packed = zstandard.ZstdCompressor().compress(b"a" * CHUNK_BYTES_MAX)
    assert len(packed) < 1000
    headers = {HASH_HEADER: "00" * 32, CHUNK_HEADER: "0/1", ENCODING_HEADER: "zstd"}
    kept = [Kept(n, "ct.mail.1.7", headers, packed) for n in range(1, 101)]
    portions = list(unpacked(stream, kept))
    assert [record.position & 0xFFFF for portion in portions for record in portion] == list(range(1, 101))
    assert (
        max(sum(len(record.payload) for record in portion) for portion in portions) < CLEAR_BYTES_MAX + CHUNK_BYTES_MAX
    )
