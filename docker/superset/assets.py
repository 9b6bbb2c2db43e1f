"""Load this folder's dashboards into Superset, or write Superset's dashboards back here.

`load` also migrates Superset's own database and sets the administrator's password; it overwrites what
Superset has under the same ids. `write` leaves out what differs between instances: numbers, times and random
names. So dashboards are changed in the browser, written back, and reviewed as text. Both run in Superset's
environment.
"""

import argparse
import logging
import re
import sys
from itertools import count
from pathlib import Path
from typing import Any

import yaml

ADMINISTRATOR = "admin"
_INSTANCE_FIELDS = {
    "charts": ("datasource", "dashboards", "slice_id", "extra_form_data", "annotation_layers"),
    "dashboards": (
        "chart_configuration",
        "global_chart_configuration",
        "map_label_colors",
        "default_filters",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Superset's dashboards as files.")
    parser.add_argument("do", choices=("load", "write"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent / "assets")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)

    from superset.app import create_app

    with create_app().app_context():
        if arguments.do == "load":
            _prepare()
            _load(arguments.folder)
        else:
            _write(arguments.folder)
    return 0


def _prepare() -> None:
    """Migrate Superset's tables, and create its roles and the administrator."""
    from flask import current_app
    from flask_migrate import upgrade
    from superset import appbuilder, security_manager
    from superset.extensions import db
    from superset_config import secret

    upgrade()
    appbuilder.add_permissions(update_perms=True)
    security_manager.sync_role_definitions()
    password = secret("admin_password")
    known = security_manager.find_user(ADMINISTRATOR)
    if known is None:
        role = security_manager.find_role(current_app.config["AUTH_ROLE_ADMIN"])
        security_manager.add_user(
            ADMINISTRATOR, "Antenna", "Administrator", "admin@localhost", role, password
        )
    else:
        security_manager.reset_password(known.id, password)
    db.session.commit()


def _load(folder: Path) -> None:
    from superset import security_manager
    from superset.commands.exceptions import CommandException, CommandInvalidError
    from superset.commands.importers.v1.assets import ImportAssetsCommand
    from superset.utils.core import override_user

    contents = {
        str(path.relative_to(folder)): path.read_text("utf-8") for path in sorted(folder.rglob("*.yaml"))
    }
    if not contents:
        raise SystemExit(f"expected YAML files in {folder}, found none")
    with override_user(security_manager.find_user(ADMINISTRATOR)):
        try:
            ImportAssetsCommand(contents).run()
        except CommandInvalidError as error:
            raise SystemExit(f"{folder}: {error.normalized_messages()}") from error
        except CommandException as error:
            raise SystemExit(f"{folder}: {error} {error.__cause__!r}") from error


def _write(folder: Path) -> None:
    from superset import security_manager
    from superset.commands.export.assets import ExportAssetsCommand
    from superset.utils.core import override_user

    with override_user(security_manager.find_user(ADMINISTRATOR)):
        found = {name: yaml.safe_load(content()) for name, content in ExportAssetsCommand().run()}
    files = {_place(name, data): _normalized(name.split("/")[0], data) for name, data in found.items()}
    for path in folder.rglob("*.yaml"):
        if str(path.relative_to(folder)) not in files:
            path.unlink()
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(data, allow_unicode=True, width=120), "utf-8")


def _place(name: str, data: dict[str, Any]) -> str:
    """Return the name of the file, without the numbers that Superset adds."""
    *folders, _ = name.split("/")
    title = next(
        (data[key] for key in ("slug", "slice_name", "table_name", "database_name") if data.get(key)), None
    )
    if title is None:
        return name
    return "/".join([*folders, f"{re.sub(r'[^a-z0-9]+', '_', title.lower()).strip('_')}.yaml"])


def _normalized(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    data.pop("timestamp", None)
    inner = data.get("params" if kind == "charts" else "metadata")
    for key in _INSTANCE_FIELDS.get(kind, ()):
        (inner or {}).pop(key, None)
    for part in ("column", "metric") if kind == "datasets" else ():
        data[f"{part}s"].sort(key=lambda field: field[f"{part}_name"])
    if kind == "dashboards":
        data["position"] = _layout(data["position"])
        for native in data["metadata"].get("native_filter_configuration", []):
            for key in ("chartsInScope", "tabsInScope"):
                native.pop(key, None)
    return data


def _layout(position: dict[str, Any]) -> dict[str, Any]:
    """Return a dashboard's tree with its parts numbered from top to bottom instead of randomly named."""
    names: dict[str, str] = {}

    def number(node: str, path: str) -> None:
        names[node] = node if node.endswith("_ID") else f"{node.split('-')[0]}{path}"
        for index, child in enumerate(position[node].get("children", []), start=1):
            number(child, f"{path}-{index}" if path or not node.endswith("_ID") else f"-{index}")

    number("ROOT_ID", "")
    numbers = count(1)
    layout: dict[str, Any] = {}
    for node, content in sorted(position.items(), key=lambda item: names.get(item[0], item[0])):
        if not isinstance(content, dict):
            layout[node] = content
            continue
        if content["type"] == "CHART":
            # Superset requires a number, and replaces it.
            content["meta"]["chartId"] = next(numbers)
        kept = {
            **content,
            "id": names.get(node, node),
            "children": [names[child] for child in content.get("children", [])],
        }
        if "parents" in content:
            kept["parents"] = [names[parent] for parent in content["parents"]]
        layout[kept["id"]] = kept
    return layout


if __name__ == "__main__":
    sys.exit(main())
