"""Where days and months begin: `ledger.period_start` against literal instants, and against zoneinfo over all zones."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import psycopg
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from antenna_assets.clients.postgres import connect

pytestmark = pytest.mark.services

MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def shared(new_database, migrated_template: str) -> Iterator[psycopg.Connection]:
    """A connection to a database that no test of this module changes."""
    with new_database(migrated_template) as url, connect(url) as opened:
        yield opened


def start(connection: psycopg.Connection, period: str, day: date, zone: str) -> datetime:
    ((found,),) = connection.execute("SELECT ledger.period_start(%s, %s, %s)", [period, day, zone]).fetchall()
    return found.astimezone(UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "day", "begins", "hours"),
    [
        ("UTC", "2026-11-22", "2026-11-22 00:00", 24),
        # +05:45: an hour in UTC belongs to two days.
        ("Asia/Kathmandu", "2026-11-22", "2026-11-21 18:15", 24),
        ("Europe/Berlin", "2026-03-29", "2026-03-28 23:00", 23),
        ("Europe/Berlin", "2026-10-25", "2026-10-24 22:00", 25),
        # Half an hour of summer time.
        ("Australia/Lord_Howe", "2026-04-05", "2026-04-04 13:00", 24.5),
        ("Australia/Lord_Howe", "2026-10-04", "2026-10-03 13:30", 23.5),
        # The clock goes back from 01:00 to 00:00: of two midnights the day begins at the first.
        ("America/Havana", "2026-11-01", "2026-11-01 04:00", 25),
        # It goes forward at midnight: the day begins at 01:00 by its own clock.
        ("America/Havana", "2026-03-08", "2026-03-08 05:00", 23),
        ("Africa/Cairo", "2026-04-24", "2026-04-23 22:00", 23),
        ("Asia/Beirut", "2026-03-29", "2026-03-28 22:00", 23),
        # It goes back from midnight to 23:00: the day before has the hour twice.
        ("Africa/Cairo", "2026-10-29", "2026-10-28 21:00", 25),
        ("Asia/Beirut", "2026-10-24", "2026-10-23 21:00", 25),
        # Clocks were set at 23:00, to what is the midnight of the next day.
        ("America/Nuuk", "2026-03-29", "2026-03-29 01:00", 24),
        ("America/Nuuk", "2026-03-28", "2026-03-28 02:00", 23),
        # No summer time any more, which was at midnight.
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04 03:00", 23),
        # A day that Samoa left out has no length.
        ("Pacific/Apia", "2011-12-30", "2011-12-30 10:00", 0),
        ("Pacific/Apia", "2011-12-29", "2011-12-29 10:00", 24),
    ],
)
def test_a_day_begins_at_the_first_instant_of_its_date(
    shared: psycopg.Connection, zone: str, day: str, begins: str, hours: float
) -> None:
    first = date.fromisoformat(day)
    assert start(shared, "day", first, zone) == utc(begins)
    ends = start(shared, "day", first + timedelta(days=1), zone)
    assert ends - utc(begins) == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("zone", "day", "begins"),
    [
        ("UTC", "2026-11-30", "2026-11-01 00:00"),
        ("Asia/Kathmandu", "2026-11-01", "2026-10-31 18:15"),
        ("Pacific/Chatham", "2026-02-01", "2026-01-31 10:15"),
        ("America/Havana", "2026-11-01", "2026-11-01 04:00"),
    ],
)
def test_a_month_begins_with_its_first_day_also_within_an_hour_in_utc(
    shared: psycopg.Connection, zone: str, day: str, begins: str
) -> None:
    assert start(shared, "month", date.fromisoformat(day), zone) == utc(begins)


def test_a_period_that_is_none_is_refused(shared: psycopg.Connection) -> None:
    with pytest.raises(
        psycopg.errors.InvalidParameterValue, match="expected the period day or month, found 'hour'"
    ):
        start(shared, "hour", date(2026, 11, 22), "UTC")


def oracle(zone: ZoneInfo, day: date) -> datetime:
    """The first minute of the day's date: all minutes of 30 hours around it are looked at, by Python's own clocks."""
    at = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(hours=15)
    # From hour to hour, and then from minute to minute: no zone is set back by more than an hour in these years, but for
    # Troll, which is by two.
    while (at + timedelta(hours=1)).astimezone(zone).date() < day and (at + timedelta(hours=2)).astimezone(
        zone
    ).date() < day:
        at += timedelta(hours=1)
    while at.astimezone(zone).date() < day:
        at += MINUTE
    return at


def same_clocks(connection: psycopg.Connection, zone: str, days: list[date]) -> set[date]:
    """The days around which PostgreSQL's clocks are Python's: of two releases of the zones, one may know less."""
    rows = connection.execute(
        "SELECT day, array_agg(hour AT TIME ZONE 'UTC' ORDER BY hour), array_agg(hour AT TIME ZONE %s ORDER BY hour)"
        " FROM unnest(%s::date[]) AS day,"
        " generate_series(day::timestamp AT TIME ZONE 'UTC' - interval '30 hours',"
        "  day::timestamp AT TIME ZONE 'UTC' + interval '30 hours', '1 hour') AS hour GROUP BY day",
        [zone, days],
    )
    info = ZoneInfo(zone)
    return {
        day
        for day, hours, local in rows
        if local == [hour.replace(tzinfo=UTC).astimezone(info).replace(tzinfo=None) for hour in hours]
    }


ZONES = sorted(name for name in available_timezones() if name not in ("localtime", "Factory"))
DAYS = st.dates(date(2020, 1, 1), date(2035, 12, 31))


@settings(max_examples=150)
@given(zone=st.sampled_from(ZONES), day=DAYS)
def test_row_41_it_is_where_zoneinfo_sees_the_date_for_the_first_time(
    shared: psycopg.Connection, zone: str, day: date
) -> None:
    first = day.replace(day=1)
    assume(same_clocks(shared, zone, [day, first]) == {day, first})
    assert start(shared, "day", day, zone) == oracle(ZoneInfo(zone), day)
    assert start(shared, "month", day, zone) == oracle(ZoneInfo(zone), first)


def test_row_41_every_change_of_the_clocks_is_met_in_every_zone(shared: psycopg.Connection) -> None:
    """Days around the changes, which random days miss: those of two years, of every zone."""
    wrong, compared = [], 0
    for zone in ZONES:
        info = ZoneInfo(zone)
        noons = [datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=number) for number in range(730)]
        changes = {
            (noon + timedelta(days=offset)).date()
            for noon in noons
            if noon.astimezone(info).utcoffset() != (noon + timedelta(days=1)).astimezone(info).utcoffset()
            for offset in (0, 1, 2)
        }
        same = same_clocks(shared, zone, sorted(changes))
        compared += len(same)
        rows = shared.execute(
            "SELECT day, ledger.period_start('day', day, %s) FROM unnest(%s::date[]) AS day",
            [zone, sorted(same)],
        )
        wrong += [(zone, day) for day, found in rows if found != oracle(info, day)]
    assert wrong == []
    assert compared > 1_500


@settings(max_examples=150)
@given(
    zone=st.sampled_from([*ZONES, "America/Havana", "Africa/Cairo", "America/Nuuk"]),
    instant=st.integers(0, 16 * 365 * 86_400 * 10**6).map(
        lambda microseconds: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    ),
    period=st.sampled_from(["day", "month"]),
)
def test_every_instant_is_in_the_period_that_has_begun_and_not_ended(
    shared: psycopg.Connection, zone: str, instant: datetime, period: str
) -> None:
    ((begins, ends),) = shared.execute(
        "SELECT ledger.period_start(%(period)s, day, %(zone)s),"
        " ledger.period_start(%(period)s, ledger.next_period(%(period)s, day), %(zone)s)"
        " FROM ledger.period_of(%(period)s, %(instant)s, %(zone)s) AS day",
        {"period": period, "zone": zone, "instant": instant},
    ).fetchall()
    assert begins <= instant < ends


def test_the_zone_of_a_session_changes_nothing(shared: psycopg.Connection) -> None:
    with shared.transaction(force_rollback=True):
        shared.execute("SET LOCAL TimeZone = 'America/New_York'")
        assert start(shared, "day", date(2026, 10, 25), "Europe/Berlin") == utc("2026-10-24 22:00")
        assert start(shared, "day", date(2026, 11, 1), "America/Havana") == utc("2026-11-01 04:00")
