"""Bytes to tensors, tensors to frames, records to bus messages."""
