from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govern.codecs.packing import MAX_UNPACKED_BYTES, unpack
from govern.errors import DecodeError


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: bytes(cramjam.brotli.compress(data)),
    "zstd": lambda data: bytes(cramjam.zstd.compress(data)),
}


@pytest.mark.parametrize("coding", PACK)
@given(data=st.binary(max_size=2000), times=st.sampled_from([1, 1, 500]))
def test_what_is_packed_is_unpacked(coding: str, data: bytes, times: int) -> None:
    assert unpack(PACK[coding](data * times), coding.upper(), what="x") == data * times


def test_bare_deflate_gzip_without_header_and_codings_on_top_of_each_other() -> None:
    assert unpack(bare_deflate(b"data"), "deflate", what="x") == b"data"
    assert unpack(gzip.compress(b"data"), "", what="x") == b"data"
    assert unpack(gzip.compress(b"data"), "identity", what="x") == b"data"
    assert unpack(PACK["br"](gzip.compress(b"data")), "gzip, br", what="x") == b"data"
    assert unpack(b"data", "", what="x") == b"data"


@pytest.mark.parametrize("coding", PACK)
def test_a_bomb_is_refused_in_bounded_memory(coding: str) -> None:
    bomb = PACK[coding](b" " * (MAX_UNPACKED_BYTES + 1))
    with pytest.raises(DecodeError, match=f"body cannot be unpacked: it is larger than {MAX_UNPACKED_BYTES}"):
        unpack(bomb, coding, what="body")


@pytest.mark.parametrize("coding", PACK)
@given(data=st.binary(max_size=300), at=st.integers(0, 300), junk=st.binary(max_size=8))
def test_damaged_data_are_a_decode_error_or_data(coding: str, data: bytes, at: int, junk: bytes) -> None:
    packed = PACK[coding](data)
    for damaged in (packed[:at], packed[:at] + junk + packed[at:], junk, data):
        try:
            assert isinstance(unpack(damaged, coding, what="x"), bytes)
        except DecodeError as error:
            assert error.fix  # noqa: PT017 - any other error fails the test, and none is as good


def test_cut_data_and_an_unknown_coding_are_named() -> None:
    for coding, pack in PACK.items():
        with pytest.raises(DecodeError, match=f"body .*(too early|no {coding})"):
            unpack(pack(b"data" * 99)[:-3], coding, what="body")
    with pytest.raises(DecodeError, match=r"body has content-encoding 'lzma'.*gzip.*br, zstd"):
        unpack(b"", "lzma", what="body")
