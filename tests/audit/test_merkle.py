"""RFC 9162 hashing, proofs and their verification, against the known roots and a naive recursive reference."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.merkle import EMPTY_ROOT, leaf_hash, node_hash, verify_consistency, verify_inclusion
from audit.tree import Frontier, Node, Span, consistency_spans, cover, fold, inclusion_spans, proof

#: The eight leaves and the roots that certificate-transparency implementations test with
#: (merkletree/merkle_tree_test.cc of the certificate-transparency project).
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 9162 2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = split(len(leaves))
    return hashlib.sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 9162 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 9162 2.1.4.1."""
    if m == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*naive_subproof(m, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


class Tree:
    """A tree in memory, with every stored node."""

    def __init__(self, leaves: list[bytes], batch: int = 3) -> None:
        self.nodes: dict[Node, bytes] = {}
        self.reads = 0
        frontier = Frontier()
        hashes = [leaf_hash(leaf) for leaf in leaves]
        for start in range(0, len(hashes), batch):
            chunk = hashes[start : start + batch]
            self.nodes.update({Node(0, start + i): one for i, one in enumerate(chunk)})
            frontier, written = frontier.append(chunk)
            for node, value in written:
                assert node not in self.nodes, "a node is written once"
                self.nodes[node] = value
        self.frontier = frontier

    def read(self, nodes: object) -> list[bytes]:
        asked = list(nodes)  # type: ignore[call-overload]
        self.reads += len(asked)
        return [self.nodes[node] for node in asked]


def leaves_of(n: int) -> list[bytes]:
    return [n_.to_bytes(3, "big") for n_ in range(n)]


def flip(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8 % len(out)] ^= 1 << bit % 8
    return bytes(out)


def test_known_roots() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Frontier().root() == EMPTY_ROOT
    for n in range(1, 9):
        assert Tree(LEAVES[:n]).frontier.root().hex() == ROOTS[n - 1]


@given(n=st.integers(0, 300), batch=st.integers(1, 40))
def test_root_equals_the_reference(n: int, batch: int) -> None:
    tree = Tree(leaves_of(n), batch)
    assert tree.frontier.root() == naive_root(leaves_of(n))
    assert tree.frontier.size == n
    assert len(tree.nodes) < max(1, 2 * n)


@given(data=st.data(), n=st.integers(1, 300))
def test_inclusion(data: st.DataObject, n: int) -> None:
    leaves = leaves_of(n)
    tree = Tree(leaves)
    size = data.draw(st.integers(1, n))
    index = data.draw(st.integers(0, size - 1))
    path = proof(inclusion_spans(index, size), tree.read)
    root = naive_root(leaves[:size])
    assert list(path) == naive_path(index, leaves[:size])
    assert tree.reads <= 2 * n.bit_length()
    good = {"leaf": leaf_hash(leaves[index]), "index": index, "size": size, "proof": path, "root": root}
    assert verify_inclusion(**good)

    bit = data.draw(st.integers(0, 255))
    assert not verify_inclusion(**{**good, "leaf": flip(good["leaf"], bit)})
    assert not verify_inclusion(**{**good, "root": flip(root, bit)})
    assert not verify_inclusion(**{**good, "index": size})
    assert not verify_inclusion(**{**good, "index": -1})
    assert not verify_inclusion(**{**good, "proof": (*path, path[0] if path else root)})
    for other in {index ^ 1, index + 1, 0, size - 1} - {index}:
        assert not verify_inclusion(**{**good, "index": other})
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        assert not verify_inclusion(**{**good, "proof": (*path[:at], flip(path[at], bit), *path[at + 1 :])})
        assert not verify_inclusion(**{**good, "proof": (*path[:at], *path[at + 1 :])})


@given(data=st.data(), n=st.integers(1, 300))
def test_consistency(data: st.DataObject, n: int) -> None:
    leaves = leaves_of(n)
    tree = Tree(leaves)
    second = data.draw(st.integers(1, n))
    first = data.draw(st.integers(1, second))
    path = proof(consistency_spans(first, second), tree.read)
    assert list(path) == naive_subproof(first, leaves[:second], True)
    assert tree.reads <= 3 * n.bit_length()
    good = {
        "first_size": first,
        "first_root": naive_root(leaves[:first]),
        "second_size": second,
        "second_root": naive_root(leaves[:second]),
        "proof": path,
    }
    assert verify_consistency(**good)

    bit = data.draw(st.integers(0, 255))
    assert not verify_consistency(**{**good, "first_root": flip(good["first_root"], bit)})
    assert not verify_consistency(**{**good, "second_root": flip(good["second_root"], bit)})
    assert not verify_consistency(**{**good, "proof": (*path, good["first_root"])})
    assert not verify_consistency(**{**good, "first_size": second + 1})
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        assert not verify_consistency(**{**good, "proof": (*path[:at], flip(path[at], bit), *path[at + 1 :])})
        assert not verify_consistency(**{**good, "proof": (*path[:at], *path[at + 1 :])})


def test_consistency_from_the_empty_tree() -> None:
    root = naive_root(leaves_of(5))
    good = {"first_size": 0, "first_root": EMPTY_ROOT, "second_size": 5, "second_root": root}
    assert verify_consistency(**good, proof=())
    assert not verify_consistency(**good, proof=(root,))
    assert not verify_consistency(**{**good, "first_root": root}, proof=())
    empty = {"first_size": 0, "first_root": EMPTY_ROOT, "second_size": 0, "second_root": EMPTY_ROOT}
    assert verify_consistency(**empty, proof=())
    assert not verify_consistency(**{**empty, "first_root": root, "second_root": root}, proof=())
    assert consistency_spans(0, 5) == ()


def test_an_unaligned_prefix_without_proof_is_refused() -> None:
    """A first tree whose size is no power of two needs at least one hash."""
    assert not verify_consistency(
        first_size=3, first_root=naive_root(leaves_of(3)), second_size=5, second_root=b"", proof=()
    )


@given(start=st.integers(0, 64), level=st.integers(0, 6), length=st.integers(1, 64))
def test_cover_is_the_span(start: int, level: int, length: int) -> None:
    span = Span(start << 6, (start << 6) + min(length, 1 << level))
    covered = [
        leaf for node in cover(span) for leaf in range(node.number << node.level, (node.number + 1) << node.level)
    ]
    assert covered == list(range(*span))


def test_fold_of_neighbours() -> None:
    a, b, c = (leaf_hash(one) for one in (b"a", b"b", b"c"))
    assert fold([node_hash(a, b), c]) == naive_root([b"a", b"b", b"c"])


@pytest.mark.parametrize(("first", "second"), [(3, 2), (-1, 2)])
def test_impossible_sizes(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="prefix"):
        consistency_spans(first, second)
    with pytest.raises(ValueError, match="not in a tree"):
        inclusion_spans(second, second)
