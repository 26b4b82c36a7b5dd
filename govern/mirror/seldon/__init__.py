"""Capture from Seldon Core v2's own Kafka topics: the halves that it publishes, joined to inferences."""
