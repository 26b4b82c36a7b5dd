"""Capture: take a copy of every inference without touching the caller's result."""
