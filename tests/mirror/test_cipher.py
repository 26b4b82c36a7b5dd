"""The spool's key and what it closes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from govern.errors import ConfigError
from govern.mirror import folder
from govern.mirror.cipher import FrameCipher, known_key, needed_key, refuse_without_restart
from govern.mirror.config import MirrorConfig

MakeConfig = Callable[..., MirrorConfig]
KEY = bytes(32)


def test_a_frame_opens_with_its_agent_its_seq_and_its_key_only() -> None:
    closed = FrameCipher(KEY, "a").close(7, b"payload")
    assert b"payload" not in closed
    assert FrameCipher(KEY, "a").open(7, closed) == b"payload"
    assert FrameCipher(KEY, "b").open(7, closed) is None
    assert FrameCipher(KEY, "a").open(8, closed) is None
    assert FrameCipher(bytes([1] * 32), "a").open(7, closed) is None
    for damaged in (b"", closed[:5], closed[:-1], closed[:-1] + bytes([closed[-1] ^ 1])):
        assert FrameCipher(KEY, "a").open(7, damaged) is None


def test_no_nonce_is_used_twice_though_a_seq_may_be() -> None:
    """A record that found no room gives its seq to the next one."""
    cipher = FrameCipher(KEY, "a")
    assert len({cipher.close(0, b"x")[:12] for _ in range(1000)}) == 1000


@pytest.fixture
def on_disk(make_config: MakeConfig, spool_dir: Path, tmp_path: Path) -> Callable[..., MirrorConfig]:
    """A configuration with its spool on a disk and its key on tmpfs."""
    if folder.in_memory(tmp_path):
        pytest.skip("the folder for temporary files is on tmpfs, and this test needs one on a disk")
    keys = spool_dir.parent / "keys"
    keys.mkdir()

    def make(*paths: str) -> MirrorConfig:
        rules = [{"path": path, "action": "drop"} for path in paths]
        return make_config(spool_dir=tmp_path / "spool", redaction={"rules": rules, "spool_key_dir": keys})

    return make


def test_processes_that_begin_at_once_agree_on_one_key(on_disk: Callable[..., MirrorConfig]) -> None:
    config = on_disk("a")
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: needed_key(config), range(64)))
    assert len(set(found)) == 1
    assert found[0] == known_key(config)
    assert len(found[0] or b"") == 32
    assert len(list(config.redaction.spool_key_dir.iterdir())) == 1


def test_nothing_is_encrypted_in_memory_or_without_rules(
    make_config: MakeConfig, on_disk: Callable[..., MirrorConfig]
) -> None:
    assert needed_key(make_config(redaction={"rules": [{"path": "a", "action": "drop"}]})) is None
    assert needed_key(on_disk()) is None


def test_the_first_rules_of_a_spool_on_disk_need_a_restart(
    make_config: MakeConfig, on_disk: Callable[..., MirrorConfig]
) -> None:
    needed_key(on_disk())
    with pytest.raises(ConfigError, match="without encryption"):
        refuse_without_restart(on_disk(), on_disk("a"))
    refuse_without_restart(on_disk("a"), on_disk("a", "b"))
    memory = make_config()
    needed_key(memory)
    refuse_without_restart(memory, make_config(redaction={"rules": [{"path": "a", "action": "drop"}]}))


def test_a_folder_that_is_on_no_tmpfs_is_a_disk(spool_dir: Path) -> None:
    assert folder.in_memory(spool_dir.parent)
    assert not folder.in_memory(Path("/proc"))
