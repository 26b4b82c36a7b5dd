"""Metrics, traces and logs: each declared in one module."""
