"""Which cell a session gets; what a cell is, the SDK's `cells` knows."""
