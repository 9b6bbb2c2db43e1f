"""The asset checks: which claim is checked of which asset, and whether its failure blocks or warns.

The claims are in `verify/claims/`. The assets themselves enforce invariants before they commit; these checks
verify what is published, also long afterwards.
"""

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Any

import dagster as dg
import psycopg

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.postgres import snapshot
from antenna_assets.defs.partitions import HOURS, POOL
from antenna_assets.defs.period_partitions import DAYS
from antenna_assets.defs.resources import PostgresResource
from antenna_assets.domain.counted import counted
from antenna_assets.domain.schema import ASSETS, HOURLY_TABLES, LIVE_TABLES
from antenna_assets.engines.contract import Engine
from antenna_assets.ledger.user_hours import hours_without_users
from antenna_assets.publishing.lake import Lake
from antenna_assets.verify.claims import CLAIMS
from antenna_assets.verify.claims.history import hours_are_fresh, volume_is_usual
from antenna_assets.verify.claims.lake import lake_claims
from antenna_assets.verify.claims.live import live_equals_hourly
from antenna_assets.verify.claims.tables import over_quota_is_exact, table_claims
from antenna_assets.verify.claims.verdict import Verdict

BLOCKING = {
    "bytes_are_conserved": "The asset holds exactly the hour's landed bytes; a lake table also its rows.",
    "keys_are_unique": "No key occurs twice in the hour.",
    "no_negative_bytes": "No row has negative bytes.",
    "over_quota_is_exact": "The users over quota are exactly those with more bytes than their quota.",
    "quota_periods_add_up": "The bytes of each user on a day are those of its hours.",
}
"""If one of these fails, a number is wrong: the run fails, and nothing downstream is computed."""

WARNING = {
    "live_equals_hourly": "The live sums of the hour equal its sums, except for late rows and open windows.",
    "known_users_share": "At least 95 % of the hour's bytes belong to users in `user_metadata`.",
    "volume_is_usual": "The hour's bytes are half to twice those of the same hour in the last four weeks.",
    "hours_are_fresh": "Every hour that ended at least half an hour ago is closed and has its certificate.",
}
"""If one of these fails, a person should look; the numbers are right."""

FRESHNESS = dg.AssetCheckKey(dg.AssetKey("users_over_quota_1h"), "hours_are_fresh")

Verdicts = Mapping[dg.AssetCheckKey, Verdict]


DAYS_ADD_UP = dg.AssetCheckSpec(
    "quota_periods_add_up",
    asset="bytes_agg_user_1d",
    description=BLOCKING["quota_periods_add_up"],
    blocking=True,
    partitions_def=DAYS,
)
"""The check of a day, which the step that publishes days runs."""

SPECS = [
    dg.AssetCheckSpec(
        name,
        asset=asset,
        description={**BLOCKING, **WARNING}[name],
        blocking=name in BLOCKING,
        partitions_def=HOURS,
    )
    for asset in ASSETS
    for name in CLAIMS[asset]
    if name != FRESHNESS.name
]
"""The checks of an hour, which the step that publishes hours runs."""


@dg.asset_check(
    asset=FRESHNESS.asset_key, name=FRESHNESS.name, description=WARNING[FRESHNESS.name], pool=POOL
)
def hours_are_fresh_check(postgres: PostgresResource) -> dg.AssetCheckResult:
    """How far all hours are, not a single one; it also runs without a partition."""
    with postgres.connection() as connection:
        fresh = hours_are_fresh(connection, database_now(connection))
    return dg.AssetCheckResult(**_judged(FRESHNESS, fresh))


class Checks:
    """The checks of a run that were asked for.

    Args:
        chosen: those of a run, or of a person who looks at published hours.
    """

    def __init__(
        self, connection: psycopg.Connection, tables: Lake, engine: Engine, chosen: Set[dg.AssetCheckKey]
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._engine = engine
        self._chosen = chosen

    def of_lake_table(self, table: str, hours: Sequence[datetime]) -> dict[datetime, Verdicts]:
        """What landed is in the lake once, the join lost nothing, and it is about as much as usual."""
        if not self._any_of([table]):
            return {}
        found = _Found(hours)
        found.add(table, lake_claims(self._connection, self._tables, self._engine, table, hours))
        if "volume_is_usual" in CLAIMS[table]:
            found.add_one(table, "volume_is_usual", volume_is_usual(self._connection, hours))
        return found.only(self._chosen)

    def of_serving_tables(self, hours: Sequence[datetime]) -> dict[datetime, Verdicts]:
        """The serving tables hold what landed and agree with the live tables."""
        if not self._any_of([*HOURLY_TABLES]):
            return {}
        now = database_now(self._connection)
        with snapshot(self._connection):
            return _of_serving_tables(self._connection, hours, now).only(self._chosen)

    def _any_of(self, assets: Sequence[str]) -> bool:
        return any(check.asset_key.to_user_string() in assets for check in self._chosen)


class _Found:
    """Verdicts on hours, claim by claim."""

    def __init__(self, hours: Sequence[datetime]) -> None:
        self._verdicts: dict[datetime, dict[dg.AssetCheckKey, Verdict]] = {hour: {} for hour in hours}

    def add(self, asset: str, of_hours: Mapping[datetime, Mapping[str, Verdict]]) -> None:
        for hour, verdicts in of_hours.items():
            for claim, verdict in verdicts.items():
                self._verdicts[hour][dg.AssetCheckKey(dg.AssetKey(asset), claim)] = verdict

    def add_one(self, asset: str, claim: str, of_hours: Mapping[datetime, Verdict]) -> None:
        self.add(asset, {hour: {claim: verdict} for hour, verdict in of_hours.items()})

    def only(self, chosen: Set[dg.AssetCheckKey]) -> dict[datetime, Verdicts]:
        """The verdicts of these checks."""
        return {
            hour: {check: verdict for check, verdict in verdicts.items() if check in chosen}
            for hour, verdicts in self._verdicts.items()
        }


def _of_serving_tables(connection: psycopg.Connection, hours: Sequence[datetime], now: datetime) -> _Found:
    found = _Found(hours)
    without_users = hours_without_users(connection, hours)
    with_users = [hour for hour in hours if hour not in without_users]
    for name, table in HOURLY_TABLES.items():
        there = with_users if name == "bytes_agg_user_1h" else hours
        found.add(name, table_claims(connection, table, there))
        live = LIVE_TABLES.get(name.removesuffix("_1h"))
        if live is not None:
            compared = live_equals_hourly(connection, live, table, there, now)
            found.add_one(name, "live_equals_hourly", compared)
    exact = over_quota_is_exact(connection, with_users)
    found.add_one("users_over_quota_1h", "over_quota_is_exact", exact)
    dropped = dict.fromkeys(
        without_users, Verdict(True, "not compared: the hour's users are in the lake alone", {"compared": 0})
    )
    for claim in CLAIMS["bytes_agg_user_1h"]:
        found.add_one("bytes_agg_user_1h", claim, dropped)
    found.add_one("users_over_quota_1h", "over_quota_is_exact", dropped)
    return found


def evaluation(
    check: dg.AssetCheckKey, verdict: Verdict, hour: str | None = None, unit: str = "hour"
) -> dg.AssetCheckEvaluation:
    """An evaluation to record outside the check's op, or for one hour or day of several."""
    return dg.AssetCheckEvaluation(
        **_judged(check, verdict, {} if hour is None else {unit: hour}),
        partition=hour,
        blocking=check.name in BLOCKING,
    )


def result(
    check: dg.AssetCheckKey, of_hours: Mapping[str, Verdict], unit: str = "hour"
) -> dg.AssetCheckResult:
    """One result for the hours, or days, of a run."""
    verdict, hours = _together(of_hours, unit), [*of_hours]
    named = {unit if len(hours) == 1 else f"{unit}s": " to ".join(hours[:1] + hours[1:][-1:])}
    return dg.AssetCheckResult(**_judged(check, verdict, named))


def _judged(check: dg.AssetCheckKey, verdict: Verdict, of: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What Dagster records of a verdict, wherever it does."""
    severity = dg.AssetCheckSeverity.ERROR if blocks(check, verdict) else dg.AssetCheckSeverity.WARN
    return {
        "asset_key": check.asset_key,
        "check_name": check.name,
        "passed": verdict.passed,
        "severity": severity,
        "description": verdict.message,
        "metadata": {**(of or {}), **verdict.metrics},
    }


def blocks(check: dg.AssetCheckKey, verdict: Verdict) -> bool:
    """Whether a number is wrong if this verdict is that the claim does not hold."""
    return check.name in BLOCKING and not verdict.only_warns


def _together(of_hours: Mapping[str, Verdict], unit: str) -> Verdict:
    """One verdict on all hours, or days, of a run, which names those that failed."""
    if len(of_hours) == 1:
        return next(iter(of_hours.values()))
    failed = {hour: verdict for hour, verdict in of_hours.items() if not verdict.passed}
    message = "; ".join(f"{hour}: {verdict.message}" for hour, verdict in failed.items())
    return Verdict(
        not failed,
        message or f"it holds for {counted(len(of_hours), unit)}",
        {f"{unit}s_checked": len(of_hours), f"{unit}s_failed": len(failed)},
        only_warns=all(verdict.only_warns for verdict in failed.values()),
    )
