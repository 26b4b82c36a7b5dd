"""Identifiers: what they say, and that no two are the same."""

from __future__ import annotations

import uuid

from govern.ids import derived_uuid7, uuid7

T_NS = 1_700_000_000_123_456_789
MANY = 500


def test_ids_of_one_moment_are_uuids_of_version_7_and_all_differ() -> None:
    made = [uuid7(T_NS) for _ in range(MANY)]
    assert len(set(made)) == MANY
    for each in map(uuid.UUID, made):
        assert (each.version, each.variant) == (7, uuid.RFC_4122)
        assert each.int >> 80 == T_NS // 1_000_000
    assert {each[19] for each in made} == set("89ab")


def test_ids_follow_the_time_they_are_made_for() -> None:
    made = [uuid7(T_NS + step * 1_000_000) for step in range(MANY)]
    assert made == sorted(made)


def test_a_derived_id_is_the_same_in_every_release() -> None:
    assert derived_uuid7(T_NS, "backfill", "a.jsonl", 3) == "018bcfe5-687b-7bd4-8a4f-63adfa07d9fe"
