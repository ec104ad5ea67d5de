"""Fixtures that any test may ask for; each lives in the module of tests/support that its thing is named after."""

pytest_plugins = ["tests.support.databases", "tests.support.models", "tests.support.registries", "tests.support.s3"]
