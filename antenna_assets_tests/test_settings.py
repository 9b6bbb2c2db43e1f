"""Settings from the environment: defaults, texts, and what is said of a wrong one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.settings import SettingsError, duration, duration_text, load_settings


def test_nothing_set_means_the_embedded_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings()
    assert settings.home == tmp_path / ".antenna"
    assert settings.lake_uri == str(tmp_path / ".antenna" / "lake")
    assert (settings.postgres_url, settings.kafka_bootstrap, settings.topic) == (None, None, "devices")
    assert (settings.engine, settings.start) == ("duckdb", datetime(2026, 1, 1, tzinfo=UTC))
    assert (settings.horizon, settings.lateness) == (timedelta(days=35), timedelta(minutes=1))
    assert (settings.window, settings.trigger) == (timedelta(minutes=5), timedelta(0))


def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTENNA_TOPIC", "")
    assert load_settings().topic == "devices"


def test_what_is_exported_reads_back_as_the_same_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ANTENNA_HOME", str(tmp_path / "with space"))
    monkeypatch.setenv("ANTENNA_HORIZON", "36 hours")
    monkeypatch.setenv("ANTENNA_LAKE", "s3://bucket/prefix")
    monkeypatch.setenv("ANTENNA_KAFKA_CONFIG", "client.properties")
    settings = load_settings()
    for name, value in settings.exports().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    assert load_settings().model_dump() == settings.model_dump()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "ANTENNA_LAKE",
            "hdfs://host/lake",
            "ANTENNA_LAKE: expected a path, or s3://bucket/prefix or gs://bucket/prefix; found hdfs://host/lake",
        ),
        (
            "ANTENNA_LAKE",
            "s3:///",
            "ANTENNA_LAKE: expected a path, or s3://bucket/prefix or gs://bucket/prefix; found s3:///",
        ),
        (
            "ANTENNA_WINDOW",
            "7 minutes",
            "ANTENNA_WINDOW: expected a length that divides an hour, found 7 minutes",
        ),
        (
            "ANTENNA_WINDOW",
            "0 minutes",
            "ANTENNA_WINDOW: expected a length that divides an hour, found 0 seconds",
        ),
        (
            "ANTENNA_HORIZON",
            "soon",
            "ANTENNA_HORIZON: expected a duration such as '5 minutes' or '35 days', found 'soon'",
        ),
        ("ANTENNA_KEEP_NOTICES", "3 days", "ANTENNA_KEEP_NOTICES: expected at least 7 days, found 3 days"),
        ("ANTENNA_START", "2026-01-01T00:30:00Z", "ANTENNA_START: expected a full hour in UTC"),
        *(
            (
                "ANTENNA_BILLING_ZONE",
                zone,
                "ANTENNA_BILLING_ZONE: expected the name of a time zone, such as Europe/Berlin or Asia/Kathmandu;"
                f" found {zone!r}",
            )
            for zone in (
                "berlin",
                "europe/berlin",
                "UTC+1",
                "../etc/localtime",
                "localtime",
                "right/UTC",
                "CEST",
            )
        ),
        ("ANTENNA_ENGINE", "duck", "ANTENNA_ENGINE: Input should be 'duckdb' or 'spark'"),
        (
            "ANTENNA_TOPICS",
            "devices",
            "ANTENNA_TOPICS is not a setting of this system; did you mean ANTENNA_TOPIC?",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(error.value).startswith(message)


def test_two_sparks_are_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTENNA_SPARK_MASTER", "local[1]")
    monkeypatch.setenv("ANTENNA_SPARK_REMOTE", "sc://127.0.0.1")
    with pytest.raises(SettingsError, match="either ANTENNA_SPARK_MASTER or ANTENNA_SPARK_REMOTE"):
        load_settings()


@given(st.integers(1, 10**7))
def test_a_duration_reads_back_from_its_text(seconds: int) -> None:
    assert duration(duration_text(timedelta(seconds=seconds))) == timedelta(seconds=seconds)
