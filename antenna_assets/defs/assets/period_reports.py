"""What a run tells Dagster of its days or months: numbers and certificate, and what failed."""

from datetime import date
from typing import NoReturn

import dagster as dg

from antenna_assets.defs.assets.run_report import RunReport
from antenna_assets.defs.checks import DAYS_ADD_UP
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.anchors import anchor_of
from antenna_assets.publishing.over_quota import PublishedPeriod
from antenna_assets.verify.claims.verdict import Verdict


class PeriodsFailed(AntennaError):
    """Days or months of a run failed; the others are published."""


class PeriodsRunReport(RunReport[date]):
    """What became of the periods of a run."""

    # Months have no checks.
    UNIT = "day"

    @property
    def published(self) -> list[date]:
        """The periods that were published, or have a newer publication, ascending."""
        return sorted({day for _, day in self._metadata})

    def add(self, published: PublishedPeriod) -> None:
        """Take a period that was published."""
        certificate = published.certificate
        if certificate is not None:
            # Where logs are kept elsewhere, these lines anchor the hashes outside the database.
            self._context.log.info(anchor_of(certificate).line)
        for asset, held in published.content["published"].items():
            self._metadata[asset, published.generation.day] = {
                # Beyond 64 bits Dagster takes no integer.
                "bytes": held["bytes"]
                if held["bytes"] < 2**63
                else dg.MetadataValue.text(str(held["bytes"])),
                "rows": held["rows"],
                "dagster/partition_row_count": held["rows"],
                "generation": published.generation.generation,
                "users_version": published.users_version,
                "sources": len(published.generation.certificates),
                "certificate": dg.MetadataValue.text(
                    "as before"
                    if certificate is None
                    else f"number {certificate.number}, {certificate.sha256}"
                ),
            }

    def add_superseded(self, day: date) -> None:
        """Take a period of which a newer generation is published."""
        for asset in self._context.selected_asset_keys:
            self._metadata[asset.to_user_string(), day] = {"superseded": 1}

    def add_verdict(self, day: date, verdict: Verdict) -> None:
        """Take what the check of a day has found. If a number is wrong, publishing the day has failed."""
        self._verdicts.setdefault(DAYS_ADD_UP.key, {})[day.isoformat()] = verdict
        if self._context.selected_asset_keys and not verdict.passed and not verdict.only_warns:
            self._failures[day] = PeriodsFailed(f"{DAYS_ADD_UP.name}: {verdict.message}")

    def add_failure(self, day: date, error: AntennaError) -> None:
        """Take a period that failed, and of which nothing was changed."""
        self._failures[day] = error

    def _key(self, partition: date) -> str:
        return partition.isoformat()

    def _raise(self) -> NoReturn:
        day, first = next(iter(sorted(self._failures.items())))
        if len(self._asked) == 1:
            raise first
        named = ", ".join(day.isoformat() for day in sorted(self._failures))
        raise PeriodsFailed(
            f"{len(self._failures)} of {len(self._asked)} failed, and the others are published: {named};"
            f" {day}: {first}"
        ) from first
