"""Cells: the jailed processes where plaintext weights live."""
