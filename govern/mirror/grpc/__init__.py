"""Capture in front of a gRPC server: HTTP/2 is relayed byte by byte, and read as it passes."""
