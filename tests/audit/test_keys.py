from __future__ import annotations

import stat
from pathlib import Path

import pytest

from audit import keys
from audit.seal import KeyEncryptionKey, SealBroken, commitment, forget, seal, unseal
from govern.errors import ConfigError


def test_keys_are_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = keys.load_or_create(folder, "govern/demo")
    again = keys.load_or_create(folder, "govern/demo")
    assert str(made.signer.verifier) == str(again.signer.verifier)
    assert made.encryption == again.encryption
    for name in ("signing-key.pem", "encryption-key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert (folder / "verifier-key.txt").read_text() == f"{made.signer.verifier}\n"
    assert sorted(path.name for path in folder.iterdir()) == ["encryption-key", "signing-key.pem", "verifier-key.txt"]
    assert made.encryption.secret.hex() not in repr(made)


def test_unfit_key_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        keys.load(tmp_path)
    keys.load_or_create(tmp_path, "govern/demo")
    (tmp_path / "encryption-key").chmod(0o644)
    with pytest.raises(ConfigError, match="mode 0644"):
        keys.load(tmp_path)
    (tmp_path / "encryption-key").chmod(0o600)
    with pytest.raises(ConfigError, match="those of the log 'govern/demo'"):
        keys.load_or_create(tmp_path, "govern/other")
    keys.load_or_create(tmp_path / "other", "govern/demo")
    (tmp_path / "verifier-key.txt").write_text((tmp_path / "other" / "verifier-key.txt").read_text())
    with pytest.raises(ConfigError, match="not the public half"):
        keys.load(tmp_path)
    (tmp_path / "other" / "encryption-key").write_text("abc")
    with pytest.raises(ConfigError, match="not 32 bytes"):
        keys.load(tmp_path / "other")
    (tmp_path / "signing-key.pem").write_text("no key")
    with pytest.raises(ConfigError, match="no Ed25519"):
        keys.load(tmp_path)


def test_seal_and_commitments() -> None:
    kek = KeyEncryptionKey(bytes(range(32)))
    key = kek.new_data_key()
    values = {"request.body": b"\x00\xff", "label": b'"1"'}
    sealed = seal(values, key)
    opened = unseal(sealed.box, key)
    assert opened.values == values
    assert sealed.commitments == {path: commitment(opened.salt, path, value) for path, value in values.items()}
    assert seal(values, key).commitments != sealed.commitments, "salts are never used twice"

    wrapped = kek.wrap(key, "request:1")
    assert kek.unwrap(wrapped, key.id, "request:1") == key
    for other in (
        (wrapped, key.id, "request:2"),
        (wrapped, "0" * 32, "request:1"),
        (wrapped[:-1], key.id, "request:1"),
    ):
        with pytest.raises(SealBroken):
            kek.unwrap(*other)
    for at in range(len(sealed.box)):
        changed = bytearray(sealed.box)
        changed[at] ^= 1
        with pytest.raises(SealBroken):
            unseal(bytes(changed), key)
    with pytest.raises(SealBroken):
        unseal(forget(values, key.id).box, key)
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)
