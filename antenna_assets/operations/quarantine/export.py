"""Export of rejected messages to a file: JSON lines, or parquet by the file's name. The quarantine is not
changed."""

import base64
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from antenna_assets.operations.quarantine.files import QuarantineError
from antenna_assets.storage.atomic_files import replacing


def export(messages: pa.Table, output: Path) -> None:
    """Write the messages to a new file: parquet if its name ends in `.parquet`, JSON lines otherwise.

    A JSON line has the value as text in `value`, or in `value_base64` if it is not UTF-8; `null` if there is
    none.

    Raises:
        QuarantineError: the file exists, or cannot be written.
    """
    if output.exists():
        raise QuarantineError(f"{output} exists and is not overwritten; choose another file")
    try:
        with replacing(output) as unfinished:
            if output.suffix == ".parquet":
                import pyarrow.parquet as pq

                pq.write_table(messages, unfinished, compression="zstd")
            else:
                with unfinished.open("x", encoding="ascii") as file:
                    for row in messages.to_pylist():
                        file.write(json.dumps(_line(row)) + "\n")
    except OSError as error:
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
