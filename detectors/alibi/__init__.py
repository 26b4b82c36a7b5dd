"""Detectors of alibi-detect behind govern's protocol: the extra [alibi], Business Source License 1.1 (see NOTICE)."""
