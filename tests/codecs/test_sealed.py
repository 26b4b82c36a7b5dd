"""Boxes that the holder of the private key opens, beside their own record only."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from govern.codecs.sealed import private_key, public_key, seal, unseal
from govern.errors import BadInput

KEY = X25519PrivateKey.generate()
VALUES: dict[str, list[object]] = {"request.a.b": ["Zo3", 1, 0.5, None, {"c": [True]}]}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def sealed(values: dict[str, list[object]] = VALUES) -> bytes:
    return seal(values, KEY.public_key(), inference_id="i1", side="request")


@given(st.dictionaries(st.sampled_from(["a", "b.c"]), st.lists(JSON, max_size=4)))
def test_what_is_sealed_is_what_is_opened(values: dict[str, list[object]]) -> None:
    assert unseal(sealed(values), KEY, inference_id="i1", side="request") == values


def test_a_box_shows_nothing_and_no_two_are_alike() -> None:
    first, second = sealed(), sealed()
    assert b"Zo3" not in first
    assert first[41:] != second[41:]
    assert first[9:41] != second[9:41]


@pytest.mark.parametrize(("inference_id", "side"), [("i2", "request"), ("i1", "response")])
def test_a_box_opens_beside_its_own_record_only(inference_id: str, side: str) -> None:
    with pytest.raises(BadInput, match="another inference or side"):
        unseal(sealed(), KEY, inference_id=inference_id, side=side)


def test_another_key_is_named_and_every_changed_byte_refused() -> None:
    with pytest.raises(BadInput, match="sealed for the key"):
        unseal(sealed(), X25519PrivateKey.generate(), inference_id="i1", side="request")
    box = sealed()
    for place in range(len(box)):
        damaged = box[:place] + bytes([box[place] ^ 1]) + box[place + 1 :]
        with pytest.raises(BadInput):
            unseal(damaged, KEY, inference_id="i1", side="request")
    with pytest.raises(BadInput, match="no box"):
        unseal(box[:40], KEY, inference_id="i1", side="request")


def test_keys_that_openssl_makes_are_read_and_others_refused(tmp_path: Path) -> None:
    private, public = tmp_path / "audit.pem", tmp_path / "audit.pub.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "X25519", "-out", private], check=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    box = seal(VALUES, public_key(public.read_bytes(), origin="seal_to"), inference_id="i", side="response")
    key = private_key(private.read_bytes(), origin="--key")
    assert unseal(box, key, inference_id="i", side="response") == VALUES
    subprocess.run(["openssl", "genpkey", "-algorithm", "ED25519", "-out", private], check=True)
    with pytest.raises(BadInput, match="no X25519 private key"):
        private_key(private.read_bytes(), origin="--key")
    with pytest.raises(BadInput, match="no X25519 public key"):
        public_key(private.read_bytes(), origin="seal_to")
