"""Dagster's instance, for commands that work with it without importing dagster themselves."""

import dagster as dg


def open_instance() -> dg.DagsterInstance:
    """The instance that `DAGSTER_HOME` names, as a context manager that disposes of it."""
    return dg.DagsterInstance.get()
