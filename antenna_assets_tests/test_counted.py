import pytest

from antenna_assets.domain.counted import counted


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ["file"], "0 files"),
        (1, ["file"], "1 file"),
        (1_234, ["file"], "1,234 files"),
        (1, ["batch", "batches"], "1 batch"),
        (2, ["batch", "batches"], "2 batches"),
        (1, ["hour is", "hours are"], "1 hour is"),
    ],
)
def test_one_is_one_and_everything_else_is_several(count: int, words: list[str], text: str) -> None:
    assert counted(count, *words) == text
