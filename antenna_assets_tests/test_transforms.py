"""One SELECT per asset, found by the asset's name."""

import re

import pytest

from antenna_assets.domain.schema import ASSETS
from antenna_assets.engines.transforms import INPUTS, UnknownTransform, transform
from antenna_assets.storage.project_files import sql_folder


def test_every_asset_has_a_transformation_and_every_file_an_asset():
    # Who was over the quota of a day or month is computed in PostgreSQL.
    assert set(INPUTS) == {*ASSETS, "bytes_agg_user_1d"}
    assert {path.stem for path in (sql_folder() / "transforms").glob("*.sql")} == set(INPUTS)


@pytest.mark.parametrize("name", INPUTS)
def test_a_transformation_is_one_select_over_its_inputs(name):
    statement = re.sub(r"--.*", "", transform(name)).strip()
    assert statement.startswith("SELECT")
    assert ";" not in statement
    assert tuple(re.findall(r"(?:FROM|JOIN) (\w+)", statement)) == INPUTS[name]


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(
        UnknownTransform, match=r"one of raw_parquet, enriched_usage, .*; found '../seed/users'"
    ):
        transform("../seed/users")
