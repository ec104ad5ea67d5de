"""`mo`: the SDK in a terminal, for researchers, reviewers and publishers."""
