"""The steps, oldest first. Each is named `s<revision>_<what>`."""
