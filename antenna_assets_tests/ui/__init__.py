"""Dagster's UI in a real browser, as a person uses it. `make test-ui` runs these tests; they need Debian's chromium."""
