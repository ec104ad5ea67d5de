"""Steps in order: what the registry does when it is asked for something."""
