"""Bytes, no I/O: each module reads and writes one format, strictly."""
