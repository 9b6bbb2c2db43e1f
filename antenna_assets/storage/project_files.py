"""The project's SQL, Docker and workspace files: beside the package in a checkout, inside it in a wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def sql_folder() -> Path:
    """The folder with `migrations/`, `transforms/` and `seed/`.

    Raises:
        FileNotFoundError: neither a checkout nor a complete wheel.
    """
    return _place("sql")


def docker_folder() -> Path:
    """The folder with `dagster.yaml` and `superset/`.

    Raises:
        FileNotFoundError: neither a checkout nor a complete wheel.
    """
    return _place("docker")


def workspace_file() -> Path:
    """`workspace.yaml`, which tells Dagster's own commands where the definitions are.

    Raises:
        FileNotFoundError: neither a checkout nor a complete wheel.
    """
    return _place("workspace.yaml")


def _place(name: str) -> Path:
    # pyproject.toml's `force-include` copies them into the wheel; in a checkout they are used in place.
    places = (_PACKAGE / "_project" / name, _PACKAGE.parent / name)
    for place in places:
        if place.exists():
            return place
    raise FileNotFoundError(
        f"expected the project's {name} at {places[0]} or {places[1]} and found neither;"
        " install the wheel again or run from a complete checkout"
    )
