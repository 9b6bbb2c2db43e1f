"""Hours that are to be published again: what that would change, and asking Dagster for it."""
