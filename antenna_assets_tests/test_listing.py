from antenna_assets.domain.listing import and_more, first_few


def test_what_is_shown_whole_has_no_rest() -> None:
    assert and_more(3, 3) == and_more(0, 20) == ""
    assert first_few(["a", "b", "c"], 3) == "a, b, c"
    assert first_few([], 3) == ""


def test_the_rest_is_counted() -> None:
    assert and_more(1_517, 20) == "and 1,497 more"
    assert and_more(7, 5, "partition") == "and 2 more partitions"
    assert and_more(6, 5, "partition") == "and 1 more partition"
    assert first_few(["a", "b", "c"], 2) == "a, b and 1 more"
    assert first_few(["a", "b", "c"], 2, separator="; ", what="file") == "a; b; and 1 more file"


def test_a_list_that_was_cut_before_is_counted_by_its_total() -> None:
    assert first_few(["a", "b"], 2, total=1_002) == "a, b and 1,000 more"
