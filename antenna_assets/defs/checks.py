"""The asset checks: which claim is checked of which asset, and whether its failure blocks or warns.

The claims are in `verify/claims/`. The assets themselves enforce invariants before they commit; these checks
verify what is published, also long afterwards.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

import dagster as dg
import psycopg

from antenna_assets.clients.clock import database_now
from antenna_assets.clients.postgres import snapshot
from antenna_assets.defs.instance_storage import events_together
from antenna_assets.defs.partitions import HOURS, POOL, hours_of
from antenna_assets.defs.resources import EngineResource, LakeResource, PostgresResource
from antenna_assets.domain.counted import counted
from antenna_assets.domain.hours import hour_key
from antenna_assets.domain.schema import HOURLY_TABLES, LIVE_TABLES
from antenna_assets.verify.claims import CLAIMS
from antenna_assets.verify.claims.history import hours_are_fresh, volume_is_usual
from antenna_assets.verify.claims.lake import lake_claims
from antenna_assets.verify.claims.live import live_equals_hourly
from antenna_assets.verify.claims.tables import known_users_share, over_quota_is_exact, table_claims
from antenna_assets.verify.claims.verdict import Verdict

BLOCKING = {
    "bytes_are_conserved": "The asset holds exactly the hour's landed bytes; a lake table also its rows.",
    "keys_are_unique": "No key occurs twice in the hour.",
    "no_negative_bytes": "No row has negative bytes.",
    "over_quota_is_exact": "The users over quota are exactly those with more bytes than their quota.",
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


def _specs(*assets: str) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(
            name,
            asset=asset,
            description={**BLOCKING, **WARNING}[name],
            blocking=name in BLOCKING,
            partitions_def=HOURS,
        )
        for asset in assets
        for name in CLAIMS[asset]
        if name != FRESHNESS.name
    ]


@dg.multi_asset_check(specs=_specs("raw_parquet"), can_subset=True, pool=POOL)
def raw_parquet_checks(
    context: dg.AssetCheckExecutionContext,
    postgres: PostgresResource,
    lake: LakeResource,
    engine: EngineResource,
) -> Iterator[dg.AssetCheckResult]:
    """What landed is in the lake exactly once, and is about as much as usual."""
    yield from _lake_results(context, postgres, lake, engine, "raw_parquet")


@dg.multi_asset_check(specs=_specs("enriched_usage"), can_subset=True, pool=POOL)
def enriched_usage_checks(
    context: dg.AssetCheckExecutionContext,
    postgres: PostgresResource,
    lake: LakeResource,
    engine: EngineResource,
) -> Iterator[dg.AssetCheckResult]:
    """The join with the users lost and duplicated no event."""
    yield from _lake_results(context, postgres, lake, engine, "enriched_usage")


@dg.multi_asset_check(specs=_specs(*HOURLY_TABLES), can_subset=True, pool=POOL)
def hourly_table_checks(
    context: dg.AssetCheckExecutionContext, postgres: PostgresResource
) -> Iterator[dg.AssetCheckResult]:
    """The serving tables hold what landed and agree with the live tables."""
    with postgres.connection() as connection:
        now = database_now(connection)

        def verdicts(hour: datetime) -> Verdicts:
            with snapshot(connection):
                return _table_verdicts(connection, hour, now)

        yield from _results(context, verdicts)


@dg.asset_check(
    asset=FRESHNESS.asset_key, name=FRESHNESS.name, description=WARNING[FRESHNESS.name], pool=POOL
)
def hours_are_fresh_check(postgres: PostgresResource) -> dg.AssetCheckResult:
    """How far all hours are, not a single one; it also runs without a partition."""
    with postgres.connection() as connection:
        return _result(FRESHNESS, hours_are_fresh(connection, database_now(connection)))


def _lake_results(
    context: dg.AssetCheckExecutionContext,
    postgres: PostgresResource,
    lake: LakeResource,
    engine: EngineResource,
    table: str,
) -> Iterator[dg.AssetCheckResult]:
    tables, run = lake.open(), engine.start()
    with postgres.connection() as connection:

        def verdicts(hour: datetime) -> Verdicts:
            found = lake_claims(connection, tables, run, table, hour)
            if "volume_is_usual" in CLAIMS[table]:
                found["volume_is_usual"] = volume_is_usual(connection, hour)
            return _of(table, found)

        yield from _results(context, verdicts)


def _table_verdicts(connection: psycopg.Connection, hour: datetime, now: datetime) -> Verdicts:
    found: dict[dg.AssetCheckKey, Verdict] = {}
    for name, table in HOURLY_TABLES.items():
        conserves = "bytes_are_conserved" in CLAIMS[name]
        found |= _of(name, table_claims(connection, table, hour, conserves_bytes=conserves))
        live = LIVE_TABLES.get(name.removesuffix("_1h"))
        if live is not None:
            compared = live_equals_hourly(connection, live, table, hour, now)
            found |= _of(name, {"live_equals_hourly": compared})
    found |= _of("bytes_agg_user_1h", {"known_users_share": known_users_share(connection, hour)})
    found |= _of("users_over_quota_1h", {"over_quota_is_exact": over_quota_is_exact(connection, hour)})
    return found


CHECKS = [raw_parquet_checks, enriched_usage_checks, hourly_table_checks, hours_are_fresh_check]


def _of(asset: str, verdicts: Mapping[str, Verdict]) -> dict[dg.AssetCheckKey, Verdict]:
    return {dg.AssetCheckKey(dg.AssetKey(asset), name): verdict for name, verdict in verdicts.items()}


def _results(
    context: dg.AssetCheckExecutionContext, verdicts: Callable[[datetime], Verdicts]
) -> Iterator[dg.AssetCheckResult]:
    """Check each hour of the run; in a run of several hours each gets its own evaluation as well."""
    hours = hours_of(context)
    found: dict[dg.AssetCheckKey, dict[str, Verdict]] = {}
    for each in hours:
        for check, verdict in verdicts(each).items():
            if check in context.selected_asset_check_keys:
                found.setdefault(check, {})[hour_key(each)] = verdict
    if len(hours) > 1:
        with events_together(context.instance):
            for check, of_hours in found.items():
                for hour, verdict in of_hours.items():
                    # It accepts this kind of event; its annotation does not list it.
                    context.op_execution_context.log_event(
                        evaluation(check, verdict, hour)  # type: ignore[arg-type]
                    )
    for check, of_hours in found.items():
        yield _result(check, _together(of_hours), hours=list(of_hours))


def evaluation(check: dg.AssetCheckKey, verdict: Verdict, hour: str | None = None) -> dg.AssetCheckEvaluation:
    """An evaluation to record outside the check's op, or for one hour of several."""
    return dg.AssetCheckEvaluation(
        asset_key=check.asset_key,
        check_name=check.name,
        partition=hour,
        passed=verdict.passed,
        severity=_severity(check, verdict),
        blocking=check.name in BLOCKING,
        description=verdict.message,
        metadata={**({} if hour is None else {"hour": hour}), **verdict.metrics},
    )


def _result(check: dg.AssetCheckKey, verdict: Verdict, hours: list[str] | None = None) -> dg.AssetCheckResult:
    named = (
        {}
        if hours is None
        else {"hour" if len(hours) == 1 else "hours": " to ".join(hours[:1] + hours[1:][-1:])}
    )
    return dg.AssetCheckResult(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=verdict.passed,
        severity=_severity(check, verdict),
        description=verdict.message,
        metadata={**named, **verdict.metrics},
    )


def _severity(check: dg.AssetCheckKey, verdict: Verdict) -> dg.AssetCheckSeverity:
    blocks = check.name in BLOCKING and not verdict.only_warns
    return dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN


def _together(of_hours: Mapping[str, Verdict]) -> Verdict:
    """One verdict on all hours of a run, which names the hours that failed."""
    if len(of_hours) == 1:
        return next(iter(of_hours.values()))
    failed = {hour: verdict for hour, verdict in of_hours.items() if not verdict.passed}
    message = "; ".join(f"{hour}: {verdict.message}" for hour, verdict in failed.items())
    return Verdict(
        not failed,
        message or f"it holds for {counted(len(of_hours), 'hour')}",
        {"hours_checked": len(of_hours), "hours_failed": len(failed)},
        only_warns=all(verdict.only_warns for verdict in failed.values()),
    )
