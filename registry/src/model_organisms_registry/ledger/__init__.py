"""The append-only Merkle log of everything that happened (C2SP tlog-tiles)."""
