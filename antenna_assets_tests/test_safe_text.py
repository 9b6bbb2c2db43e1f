"""Text from outside: no terminal acts on it, and different texts never look the same."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.domain.safe_text import LABEL_LENGTH, label, labels, safe_name, safe_text

# Letters and marks of which many spell the same, or nothing that can be seen.
ALIKE = st.text(
    st.sampled_from(
        "aeé\u0301\u0327\u0300Å\u212bK\u212a\u1100\u1161\u11a8가\u0f71\u0f72\u200b\u200e\u3164\ufe0f \u00a0\\u1"
    ),
    max_size=8,
)
TEXTS = st.text(max_size=20) | ALIKE


def test_two_spellings_of_a_letter_are_shown_apart() -> None:
    assert safe_text("Noël") == "Noël"
    assert safe_text("Noe\u0308l") == r"Noe\u0308l"
    assert safe_text("\u212bngström") == r"\u212bngström"
    assert safe_text("\u1100\u1161") == "\u1100\\u1161"


def test_letters_that_are_written_with_marks_stay_as_they_are() -> None:
    for text in ("x\u0302", "कि", "שָׁ", "กำ", "가", "日本", "Việt"):
        assert safe_text(text) == unicodedata.normalize("NFC", text)


def test_what_is_drawn_as_nothing_or_as_a_blank_is_escaped() -> None:
    assert safe_text("a\u200bb\u200e\u3164\ufe0f\u2800\u00a0") == r"a\u200bb\u200e\u3164\ufe0f\u2800\xa0"
    assert safe_name(" u 1  ") == r"\x20u 1\x20\x20"
    assert safe_name("u  1") == r"u \x201"


def test_no_more_than_eight_marks_are_heaped_on_a_letter() -> None:
    marks = "\u0335" * 200_000
    assert safe_text(f"q{marks}") == "q" + "\u0335" * 8 + r"\u0335" * (len(marks) - 8)


@given(TEXTS)
def test_what_is_shown_is_printable_and_normalized(text: str) -> None:
    for shown in (safe_text(text), safe_name(text), label(text)):
        assert shown.isprintable()
        assert unicodedata.is_normalized("NFC", shown)


@given(TEXTS, TEXTS | st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_different_texts_look_different_also_after_normalization(one: str, other: str) -> None:
    if other in ("NFC", "NFD", "NFKC", "NFKD"):
        other = unicodedata.normalize(other, one)
    for shown in (safe_text, safe_name):
        pictures = [unicodedata.normalize("NFC", shown(text)) for text in (one, other)]
        assert (pictures[0] == pictures[1]) == (one == other)


def test_names_with_the_same_ends_are_cut_where_they_differ() -> None:
    first, last = "antenna-of-the-north-", "-on-the-roof-of-the-station"
    assert labels([f"{first}{number}{last}" for number in (1, 2)]) == [
        "ante…th-1-on-the-roof-o…",
        "ante…th-2-on-the-roof-o…",
    ]
    assert labels(["a", "b", "a"]) == ["a", "b", "a (2)"]


@given(st.lists(st.text("ab", min_size=20, max_size=90) | st.text(max_size=40), unique=True, max_size=12))
def test_no_two_labels_are_alike_and_none_is_long(names: list[str]) -> None:
    found = labels(names)
    assert len(set(found)) == len(names)
    assert max(map(len, found), default=0) <= LABEL_LENGTH + len(" (12)")
    assert labels(names[:1]) == [label(name) for name in names[:1]]
