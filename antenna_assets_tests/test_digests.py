"""What a certificate says of a table's rows is one text, whatever is in them."""

import hashlib
import json

from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.publishing.digests import RowsDigest

VALUES = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
    st.integers(-(2**63), 2**63 - 1),
    st.none(),
)


@given(st.lists(st.lists(VALUES, min_size=1, max_size=4).map(tuple), max_size=5))
def test_rows_are_hashed_as_lines_of_json_that_any_program_can_write(rows: list[tuple]) -> None:
    digest = RowsDigest()
    for row in rows:
        digest.add(row)
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows]
    assert digest.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
