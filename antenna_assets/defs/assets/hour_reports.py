"""What a run tells Dagster of its hours: numbers, previews, certificate and checks, and what failed."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn

import dagster as dg
import psycopg

from antenna_assets.defs.assets.preview import lake_views, table_views
from antenna_assets.defs.assets.run_report import Metadata, RunReport
from antenna_assets.defs.checks import Verdicts, blocks
from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.schema import HOURLY_TABLES, LAKE_TABLES
from antenna_assets.engines.contract import Dataset, Engine
from antenna_assets.errors import AntennaError
from antenna_assets.ledger.anchors import anchor_of
from antenna_assets.ledger.certificate import Certificate, newest_certificates
from antenna_assets.publishing.outcomes import HourReport, Outcomes


class HoursFailed(AntennaError):
    """Hours of a run failed; the others are published."""


class HoursRunReport(RunReport[datetime]):
    """What became of the hours of a run."""

    UNIT = "hour"

    def add(self, connection: psycopg.Connection, engine: Engine, asset: str, outcomes: Outcomes) -> None:
        """Take what became of an asset's hours."""
        self._failures |= {
            hour: error for hour, error in outcomes.failures.items() if hour not in self._failures
        }
        for superseded in outcomes.superseded.values():
            self._context.log.info(f"nothing to do: {superseded}")
        seconds = {f"{name}_seconds": round(value, 3) for name, value in outcomes.seconds.items()}
        reports: dict[datetime, Metadata] = {hour: {"superseded": 1} for hour in outcomes.superseded}
        for hour, one in outcomes.published.items():
            # Of the newest hour: nobody looks at each one of a range.
            views = _views(engine, asset, one) if hour == self._asked[-1] else {}
            reports[hour] = {**one.numbers, "dagster/partition_row_count": one.numbers["rows"], **views}
        certificates = newest_certificates(connection, [*reports])
        # Where logs are kept elsewhere, these lines anchor the hashes outside the database.
        issued = [one for one in certificates.values() if _last_published(one) == asset]
        if issued:
            self._context.log.info("\n".join(anchor_of(one).line for one in issued))
        for hour, metadata in reports.items():
            certificate = _certificate(certificates.get(hour), hour)
            shown = {**metadata, **seconds, "certificate": certificate}
            self._metadata[asset, hour] = shown

    def add_verdicts(
        self, verdicts: Mapping[datetime, Verdicts], hours: Sequence[datetime]
    ) -> list[datetime]:
        """Take the verdicts on some hours; returns those of which no number was found wrong.

        In a run that publishes, an hour with a wrong number has failed: nothing more of it is published.
        """
        wrong: set[datetime] = set()
        for hour, of_hour in verdicts.items():
            for check, verdict in of_hour.items():
                self._verdicts.setdefault(check, {})[hour_key(hour)] = verdict
                if self._context.selected_asset_keys and not verdict.passed and blocks(check, verdict):
                    wrong.add(hour)
                    asset = check.asset_key.to_user_string()
                    failure = HoursFailed(f"{asset}, {check.name}: {verdict.message}")
                    self._failures.setdefault(hour, failure)
        return [hour for hour in hours if hour not in wrong]

    def _key(self, partition: datetime) -> str:
        return hour_key(partition)

    def _raise(self) -> NoReturn:
        hour, first = next(iter(sorted(self._failures.items())))
        if len(self._asked) == 1:
            raise first
        named = ", ".join(map(hour_key, sorted(self._failures)))
        raise HoursFailed(
            f"{counted(len(self._failures), 'hour')} failed, and the others are published: {named};"
            f" {hour_key(hour)}: {first}"
        ) from first


def _views(engine: Engine, asset: str, report: HourReport) -> Metadata:
    if asset in LAKE_TABLES:
        return lake_views(engine, Dataset(report.files, LAKE_TABLES[asset]))
    return {} if report.top is None else table_views(HOURLY_TABLES[asset], report.top)


def _last_published(certificate: Certificate) -> str:
    """The asset whose publication issued the certificate."""
    published = certificate.content["published"]
    return max(published, key=lambda asset: published[asset]["publication"])


def _certificate(found: Certificate | None, hour: datetime) -> dg.MetadataValue:
    """The hour's newest certificate, and the command that shows it."""
    command = f"`antenna certificate {hour_key(hour)}`"
    if found is None:
        return dg.MetadataValue.md(
            f"none yet: the last of the hour's six assets issues it; {command} will show it"
        )
    return dg.MetadataValue.md(
        f"number {found.number} of generation {found.generation}, SHA-256 `{found.sha256}`; {command} shows "
        "it"
    )
