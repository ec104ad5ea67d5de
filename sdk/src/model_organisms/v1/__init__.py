"""Generated from proto/; `make proto` writes everything else here."""
