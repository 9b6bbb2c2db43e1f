"""The file of answers: JSON with one row per line, replaced atomically."""

import json
from pathlib import Path

from antenna_assets.simulator.answers import Answers, AnswersError
from antenna_assets.storage.atomic_files import replacing

FORMAT = 1


def write_answers(answers: Answers, path: Path) -> None:
    """Write the answers. Readers see the old file or the new one."""
    document = {"format": FORMAT, **answers.document()}
    tables = document.pop("tables")
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in document.items()]
    rows_of_tables = [
        f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, rows)) + "\n]"
        for name, rows in tables.items()
    ]
    text = "{\n" + ",\n".join(lines) + ',\n"tables": {\n' + ",\n".join(rows_of_tables) + "\n}\n}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def read_answers(path: Path) -> Answers:
    """Read what `write_answers` wrote.

    Raises:
        AnswersError: there is no such file, or it is not a consistent one of this format.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AnswersError(
            f"{path}: no such file; write one with `antenna simulate --answers {path}`"
        ) from None
    except (OSError, ValueError) as error:
        raise AnswersError(
            f"{path}: expected an answers file in JSON, and it cannot be read: {error}"
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format", "none") if isinstance(document, dict) else type(document).__name__
        raise AnswersError(
            f"{path}: expected an answers file of format {FORMAT}, found {found!r}; write a new one with"
            f" `antenna simulate --answers {path}`"
        )
    try:
        answers = Answers.restored(document)
        consistent = answers.tables() == document["tables"] and answers.hours() == document["hours"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AnswersError(f"{path}: an answers file with a part missing or damaged: {error!r}") from error
    if not consistent:
        raise AnswersError(f"{path}: the tables contradict each other: the file was changed; write a new one")
    return answers
