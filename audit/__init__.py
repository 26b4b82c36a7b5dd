"""The audit log: an append-only, signed Merkle log of everything that was captured, judged, explained or read."""
