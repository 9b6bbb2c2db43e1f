"""`antenna certificate` of a day and a month: what it rests on, and the text that its hash is of."""

import hashlib
import json

import pytest
from typer.testing import CliRunner, Result

from antenna_assets.cli import app
from antenna_assets.domain.periods import NotAPeriod
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.certificate import NoCertificate

pytestmark = pytest.mark.services


def certificate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["certificate", *arguments])


def rows(result: Result) -> list[str]:
    """The lines that are printed, with single blanks."""
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.output.splitlines()]


@pytest.mark.usefixtures("world")
def test_the_certificate_of_a_day_names_its_hours_and_that_of_a_month_its_days() -> None:
    day = rows(certificate("2026-10-31", "--period", "day"))
    assert day[0].startswith("Certificate 2 of the day 2026-10-31, issued ")
    for line in (
        "generation 1",
        "zone UTC",
        "begins 2026-10-31 00:00 UTC",
        "ends 2026-11-01 00:00 UTC",
        "other zones 1 user",
        "unknown users 1, with 5 bytes",
        # From 18:00 on, which is within an hour of Bela's midnight.
        "2026-10-30-18:00 1 7",
        "2026-10-31-23:00 1 36",
        "bytes_agg_user_1d 3 1,225",
        "users_over_quota_1d 1 1,000",
    ):
        assert line in day
    month = rows(certificate("2026-10-01", "--period", "month"))
    assert month[0].startswith("Certificate 3 of the month 2026-10-01, issued ")
    for line in ("zone UTC", "2026-10-30 1 1", "2026-10-31 1 2", "users_over_quota_1mo 1 1,100"):
        assert line in month
    text = certificate("2026-10-01", "--period", "month", "--json").output.strip()
    assert f"SHA-256 {hashlib.sha256(text.encode()).hexdigest()}" in month
    assert json.loads(text)["content"]["period"] == "month"


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("arguments", "refused", "message"),
    [
        (["2026-11-01", "--period", "day"], NoCertificate, "the day 2026-11-01 has no certificate"),
        (["2026-10-31", "--period", "month"], NotAPeriod, "a month by its first day, such as 2026-11-01"),
        (
            ["2026-10-31"],
            AntennaError,
            "expected an hour in UTC such as 2026-11-22-10:00, found '2026-10-31'",
        ),
    ],
)
def test_what_has_no_certificate_is_one_clear_error(
    arguments: list[str], refused: type[AntennaError], message: str
) -> None:
    found = certificate(*arguments).exception
    assert isinstance(found, refused)
    assert message in str(found)
