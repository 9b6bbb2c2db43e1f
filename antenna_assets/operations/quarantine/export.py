"""Writing selected messages to a file for a person or another program: JSON lines, or parquet by the file's name.

The quarantine itself is not changed.
"""

import base64
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa

from antenna_assets.operations.quarantine.files import QuarantineError


def export(messages: pa.Table, output: Path) -> None:
    """Write the messages to a new file: parquet if its name ends so, JSON lines otherwise.

    A JSON line has the value as text in `value`, or in `value_base64` if it is not UTF-8; a message without a value
    has `"value": null`.

    Raises:
        QuarantineError: the file exists, or cannot be written.
    """
    if output.exists():
        raise QuarantineError(f"{output} exists already and is not overwritten; name another file")
    # Under another name until it is whole.
    unfinished = output.with_name(f".{output.name}-{uuid4().hex[:12]}")
    try:
        if output.suffix == ".parquet":
            import pyarrow.parquet as pq

            pq.write_table(messages, unfinished, compression="zstd")
        else:
            with unfinished.open("x", encoding="ascii") as file:
                for row in messages.to_pylist():
                    file.write(json.dumps(_line(row)) + "\n")
        os.replace(unfinished, output)  # noqa: PTH105
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise QuarantineError(f"{output} cannot be written: {error.strerror or error}") from error


def _line(row: dict[str, Any]) -> dict[str, Any]:
    value: bytes | None = row["value"]
    try:
        content = {"value": None if value is None else value.decode("utf-8")}
    except UnicodeDecodeError:
        content = {"value_base64": base64.b64encode(value or b"").decode("ascii")}
    return {
        "topic_id": row["topic_id"],
        "partition": row["kafka_partition"],
        "offset": row["kafka_offset"],
        "kafka_timestamp": row["kafka_timestamp"].isoformat(),
        "batch": row["batch"],
        "reason": row["reason"],
        "detail": row["detail"],
        **content,
    }
