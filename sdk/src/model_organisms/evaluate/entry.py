"""What Inspect loads by the package's entry point: importing this registers models and tasks. Nobody else imports it."""
