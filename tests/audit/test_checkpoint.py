"""C2SP notes and checkpoints: equal, byte for byte, to those of golang.org/x/mod/sumdb/note.

`golden/note.json` is made by the Go program beside it: `cd tests/audit/golden && go run . </dev/null > note.json`.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.checkpoint import BadCheckpoint, Checkpoint, Signer, VerifierKey, check_name, open_checkpoint, open_note
from audit.merkle import EMPTY_ROOT
from govern.errors import BadInput

GOLDEN = json.loads((Path(__file__).parent / "golden" / "note.json").read_text())
#: The example of https://c2sp.org/signed-note (its key is not published with it, so only its form can be read).
C2SP_CHECKPOINT = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGz"
    "Ggu9nTo+zyWE+xeMcTOAYQ8=\n"
)


def golden_signer() -> Signer:
    """The key that Go made (`PRIVATE+KEY+name+id+base64(0x01 || seed)`)."""
    _, _, name, _, secret = GOLDEN["signer_key"].split("+", 4)
    return Signer(name, Ed25519PrivateKey.from_private_bytes(base64.b64decode(secret)[1:]))


def test_equal_to_go() -> None:
    signer = golden_signer()
    assert str(signer.verifier) == GOLDEN["verifier_key"]
    text = GOLDEN["note"].partition("\n\n")[0] + "\n"
    assert signer.sign(text) == GOLDEN["note"]
    key = VerifierKey.parse(GOLDEN["verifier_key"])
    checkpoint = open_checkpoint(GOLDEN["note"], key)
    assert (checkpoint.origin, checkpoint.size) == ("govern.example/census", 8)
    assert checkpoint.root.hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert checkpoint.text() == text


def test_every_changed_byte_is_refused() -> None:
    key = VerifierKey.parse(GOLDEN["verifier_key"])
    data = GOLDEN["note"].encode()
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises((BadCheckpoint, UnicodeDecodeError)):
                open_checkpoint(changed.decode(), key)


def test_other_signatures_are_ignored() -> None:
    signer = golden_signer()
    other = Signer(signer.name, Ed25519PrivateKey.generate())
    witness = Signer("witness.example/w1", Ed25519PrivateKey.generate())
    text = Checkpoint(signer.name, 0, EMPTY_ROOT).text()
    line = signer.sign(text).rpartition("\n\n")[2]
    note = witness.sign(text) + line + other.sign(text).rpartition("\n\n")[2]
    for each in (signer, witness, other):
        assert open_note(note, each.verifier) == text
    with pytest.raises(BadCheckpoint, match="no signature"):
        open_note(signer.sign(text), other.verifier)
    with pytest.raises(BadCheckpoint, match="checkpoint of"):
        open_checkpoint(note, witness.verifier)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log\n1\n",
        "log\n01\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "log\n-1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "log\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=",
        "log\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2J=\n",
        "log\n1\nAAAA\n",
        "log\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\nextension\n",
        "\n1\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
    ],
)
def test_malformed_checkpoints(text: str) -> None:
    with pytest.raises(BadCheckpoint):
        Checkpoint.parse(text)


def test_extension_lines_are_ignored() -> None:
    text = C2SP_CHECKPOINT.partition("\n\n")[0] + "\nextension\n"
    assert Checkpoint.parse(text).size == 20852163


@pytest.mark.parametrize(
    "key",
    [
        "",
        "name",
        "name+00000000+" + base64.b64encode(b"\x01" + bytes(32)).decode(),
        "name+zz+AQ==",
        GOLDEN["verifier_key"].replace("+AR", "+AS"),
        GOLDEN["verifier_key"].replace("census", "censuz"),
    ],
)
def test_malformed_keys(key: str) -> None:
    with pytest.raises(BadCheckpoint):
        VerifierKey.parse(key)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b"])
def test_names(name: str) -> None:
    with pytest.raises(BadInput, match="origin"):
        check_name(name)
