"""What a run tells Dagster of its days or months: numbers and certificate, and what failed."""

from collections.abc import Iterator, Sequence
from datetime import date

import dagster as dg

from antenna_assets.defs.checks import DAYS_ADD_UP, evaluation, result
from antenna_assets.errors import AntennaError
from antenna_assets.publishing.over_quota import PublishedPeriod
from antenna_assets.verify.claims.verdict import Verdict

Metadata = dict[str, int | float | dg.MetadataValue]


class PeriodsFailed(AntennaError):
    """Days or months of a run failed; the others are published."""


class PeriodReport:
    """What became of the periods of a run, recorded in Dagster at its end.

    Dagster records nothing of a step that fails: what was published is recorded here then.
    """

    def __init__(self, context: dg.AssetExecutionContext, days: Sequence[date]) -> None:
        self._context = context
        self._days = days
        self._metadata: dict[tuple[str, date], Metadata] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._failures: dict[date, AntennaError] = {}

    @property
    def published(self) -> list[date]:
        """The periods that were published, or have a newer publication, ascending."""
        return sorted({day for _, day in self._metadata})

    def add(self, published: PublishedPeriod) -> None:
        """Take a period that was published."""
        certificate = published.certificate
        if certificate is not None:
            # Where logs are kept elsewhere, these lines anchor the hashes outside the database.
            self._context.log.info(
                f"{certificate.period} {certificate.day}: certificate {certificate.number} of periods"
                f" sha256 {certificate.sha256}"
            )
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
        self._verdicts[day.isoformat()] = verdict
        if self._context.selected_asset_keys and not verdict.passed and not verdict.only_warns:
            self._failures[day] = PeriodsFailed(f"{DAYS_ADD_UP.name}: {verdict.message}")

    def add_failure(self, day: date, error: AntennaError) -> None:
        """Take a period that failed, and of which nothing was changed."""
        self._failures[day] = error

    def results(self) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        """Record everything.

        Raises:
            AntennaError: the failure of the period that failed.
            PeriodsFailed: several failed; the message has the first failure.
        """
        if self._verdicts and (len(self._days) > 1 or self._failures):
            for key, verdict in self._verdicts.items():
                # It accepts this kind of event; its annotation does not list it.
                self._context.op_execution_context.log_event(
                    evaluation(DAYS_ADD_UP.key, verdict, key, "day")  # type: ignore[arg-type]
                )
        if self._failures:
            for (asset, day), metadata in self._metadata.items():
                self._context.log_event(
                    dg.AssetMaterialization(asset, partition=day.isoformat(), metadata=metadata)
                )
            self._raise()
        chosen = {key.to_user_string() for key in self._context.selected_asset_keys}
        for (asset, day), metadata in self._metadata.items():
            if asset in chosen:
                self._context.add_asset_metadata(metadata, asset, day.isoformat())
        for asset in dict.fromkeys(asset for asset, _ in self._metadata if asset in chosen):
            yield dg.MaterializeResult(asset_key=asset)
        if self._verdicts:
            yield result(DAYS_ADD_UP.key, self._verdicts, "day")

    def _raise(self) -> None:
        day, first = next(iter(sorted(self._failures.items())))
        if len(self._days) == 1:
            raise first
        named = ", ".join(day.isoformat() for day in sorted(self._failures))
        raise PeriodsFailed(
            f"{len(self._failures)} of {len(self._days)} failed, and the others are published: {named};"
            f" {day}: {first}"
        ) from first
