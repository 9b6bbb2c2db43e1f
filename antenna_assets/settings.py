"""Every setting of the system: name, default and check.

This is the only module that reads a setting from the environment, except `file_modes.py`: the umask must be
in force before anything else is imported. Other modules use the environment only to pass it on to a child
process, or to set a variable for a library. Where the embedded services listen is found by `stack.services`.
"""

import os
import re
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from antenna_assets import file_modes
from antenna_assets.errors import AntennaError

PREFIX = "ANTENNA_"
FIRST_START = datetime(2026, 1, 1, tzinfo=UTC)
"""The first hourly partition if nothing else is known."""

HOUR = timedelta(hours=1)

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_DURATION = re.compile(r"\s*(\d+)\s*(second|minute|hour|day)s?\s*")


class SettingsError(AntennaError):
    """A setting is wrong; the message says which, what was expected and what was found."""


def duration(text: Any) -> timedelta:
    """Parse a duration such as `5 minutes`, `1 hour` or `35 days`."""
    if isinstance(text, timedelta):
        return text
    match = _DURATION.fullmatch(str(text).lower())
    if match is None:
        raise ValueError(f"expected a duration such as '5 minutes' or '35 days', found {text!r}")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def duration_text(value: timedelta) -> str:
    """The inverse of `duration`, in the largest unit that divides it: `35 days`."""
    seconds = int(value.total_seconds())
    for unit, size in sorted(_UNITS.items(), key=lambda item: -item[1]):
        if seconds % size == 0 and seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "0 seconds"


Duration = Annotated[timedelta, BeforeValidator(duration)]


def _divides_an_hour(window: timedelta) -> timedelta:
    if not window or HOUR % window:
        raise ValueError(f"expected a length that divides an hour, found {duration_text(window)}")
    return window


def _live_windows(text: str, window: timedelta) -> dict[str, timedelta]:
    found: dict[str, timedelta] = {}
    for part in filter(str.strip, text.split(",")):
        name, separator, length = (one.strip() for one in part.partition(":"))
        if name not in ("antenna", "user", "app") or f"bytes_agg_{name}" in found:
            raise ValueError(
                "expected some of antenna, user and app, each once, as in 'antenna, user: 1 hour, app';"
                f" found {name!r}"
            )
        found[f"bytes_agg_{name}"] = _divides_an_hour(duration(length)) if separator else window
    if not found:
        raise ValueError(f"expected one of antenna, user and app at least, found {text!r}")
    return found


_SERVICE_VARIABLE = re.compile(
    r".+_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT|PORT_.+)|PORT(_.+)?|SERVICE_HOST|SERVICE_PORT(_.+)?"
)
"""Endings of the variables that Kubernetes sets in every pod for each service of its namespace, such as
`ANTENNA_ASSETS_SERVICE_HOST` for `antenna-assets` and `ANTENNA_PORT` for `antenna`. No setting ends like
this."""


StreamEngine = Literal["duckdb", "spark"]


class Settings(BaseSettings):
    """The settings in force. Unset or empty means the default; an unknown `ANTENNA_` variable is an error."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        # Dagster stores and shows errors, and an address holds a password.
        hide_input_in_errors=True,
    )

    home: Path = Field(
        Path(".antenna"), description="state directory of the embedded services and of Dagster"
    )
    postgres_url: str | None = Field(
        None, description="external PostgreSQL; unset: the embedded one", repr=False
    )
    kafka_bootstrap: str | None = Field(None, description="external Kafka brokers; unset: the embedded one")
    kafka_config: Path | None = Field(
        None,
        description="properties file of Kafka's Java client, for external brokers that need TLS or a login",
    )
    topic: str = Field("devices", description="Kafka topic of the events")
    alert_channels: Path | None = Field(
        None, description="TOML file of the channels to which `antenna alerts deliver` sends notices"
    )
    lake: str | None = Field(
        None,
        description="path of the lake, or s3://bucket/prefix or gs://bucket/prefix; "
        "unset: `lake` in the state directory",
    )
    engine: Literal["duckdb", "spark"] = Field("duckdb", description="what runs the hourly transformations")
    stream_engine: StreamEngine = Field(
        "duckdb", description="what reads the stream: `duckdb` in its own process, or `spark` on a cluster"
    )
    spark_master: str = Field("local[*]", description="Spark master of the stream, and of the Spark engine")
    spark_remote: str | None = Field(
        None, description="Spark Connect address of the Spark engine", repr=False
    )
    start: datetime = Field(
        FIRST_START,
        description="first hourly partition, UTC; unset: the one that `antenna up` recorded in `home`",
    )
    horizon: Duration = Field(
        timedelta(days=35), description="older events are rejected; landing is kept this long"
    )
    keep_user_hours: Duration | None = Field(
        None,
        description="a sweep drops older hours of users from PostgreSQL, by day; the lake keeps them."
        " Unset: for ever",
    )
    keep_notices: Duration = Field(
        timedelta(days=90),
        description="a sweep removes older notices that were sent or given up, and alerts that are resolved",
    )
    lateness: Duration = Field(timedelta(minutes=1), description="allowed lateness before an hour closes")
    republish_wait: Duration = Field(
        timedelta(minutes=15),
        description="longest that late rows wait before their hour is published again; 0: no wait",
    )
    quiet: Duration = Field(
        timedelta(minutes=15), description="an ended hour closes after this long without a row"
    )
    window: Duration = Field(timedelta(minutes=5), description="length of a live window; divides an hour")
    live: str = Field(
        "antenna, user, app",
        description="the live tables that the stream keeps, and windows of their own, such as"
        " `antenna, user: 1 hour, app`",
    )
    billing_zone: str = Field(
        "UTC",
        description="zone of days and months, such as Europe/Berlin; fixed once a day is published",
    )
    trigger: Duration = Field(timedelta(0), description="time between micro-batches; 0: as soon as possible")
    umask: int = Field(
        file_modes.PRIVATE,
        description="umask of files and folders; 027 lets the group read a lake that is shared on purpose",
    )
    crash_at: str | None = Field(
        None,
        description="failpoint at which the process kills itself; `point:N` at its N-th passage, with "
        "`:java`, `:both` or `:pause` for another fault",
    )

    @field_validator("home")
    @classmethod
    def _absolute_home(cls, home: Path) -> Path:
        return home.expanduser().absolute()

    @field_validator("lake")
    @classmethod
    def _lake_is_on_a_disk_or_in_a_store(cls, lake: str | None) -> str | None:
        scheme, separator, place = (lake or "").partition("://")
        if separator and (scheme not in STORES or not place.strip("/")):
            stores = " or ".join(f"{store}://bucket/prefix" for store in STORES)
            raise ValueError(f"expected a path, or {stores}; found {lake}")
        if separator and any(mark in place for mark in "@?"):
            # The lake's root is shown and stored with the names of its files.
            raise ValueError(
                f"expected {scheme}://bucket/prefix without a login or options; give a store's credentials "
                "as its own programs take them, such as by AWS_ACCESS_KEY_ID or "
                "GOOGLE_APPLICATION_CREDENTIALS"
            )
        return lake

    @field_validator("kafka_config", "alert_channels")
    @classmethod
    def _absolute_file(cls, path: Path | None) -> Path | None:
        return path and path.expanduser().absolute()

    @field_validator("start")
    @classmethod
    def _start_is_an_hour_in_utc(cls, start: datetime) -> datetime:
        start = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
        if start != start.replace(minute=0, second=0, microsecond=0):
            raise ValueError(f"expected a full hour in UTC, found {start.isoformat()}")
        return start

    @field_validator("window")
    @classmethod
    def _window_divides_an_hour(cls, window: timedelta) -> timedelta:
        return _divides_an_hour(window)

    @field_validator("live")
    @classmethod
    def _live_names_tables(cls, live: str) -> str:
        _live_windows(live, HOUR)
        return live

    @field_validator("billing_zone")
    @classmethod
    def _billing_zone_is_known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
            # `right/...` counts leap seconds, and `localtime` is another zone on each machine.
            known = zone.partition("/")[0] not in ("posix", "right", "localtime")
        except (KeyError, ValueError, OSError):
            known = False
        if not known:
            raise ValueError(
                f"expected the name of a time zone, such as Europe/Berlin or Asia/Kathmandu; found {zone!r}"
            )
        return zone

    @field_validator("keep_user_hours", "keep_notices")
    @classmethod
    def _kept_for_days(cls, kept: timedelta | None) -> timedelta | None:
        if kept is not None and kept < timedelta(days=7):
            # Users' hours: as long as the live windows, which are compared with them. Notices: longer than
            # they are tried, so that what became of one can be seen.
            raise ValueError(f"expected at least 7 days, found {duration_text(kept)}")
        return kept

    @field_validator("republish_wait")
    @classmethod
    def _republish_wait_is_of_minutes(cls, wait: timedelta) -> timedelta:
        if wait > HOUR:
            raise ValueError(f"expected at most 1 hour, found {duration_text(wait)}")
        return wait

    @field_validator("umask", mode="before")
    @classmethod
    def _umask_in_octal(cls, text: Any) -> int:
        return text if isinstance(text, int) else file_modes.parse(str(text))

    @model_validator(mode="after")
    def _one_spark(self) -> "Settings":
        if self.spark_remote and "spark_master" in self.model_fields_set:
            raise ValueError("set either ANTENNA_SPARK_MASTER or ANTENNA_SPARK_REMOTE, not both")
        return self

    @property
    def live_windows(self) -> dict[str, timedelta]:
        """The live tables that the stream keeps, by name, each with the length of its windows."""
        return _live_windows(self.live, self.window)

    @property
    def lake_uri(self) -> str:
        """The lake's root: an absolute path, or a URI without a trailing slash."""
        if self.lake is None:
            return str(self.home / "lake")
        if is_local(self.lake):
            return str(Path(self.lake).expanduser().absolute())
        return self.lake.rstrip("/")

    def exports(self) -> dict[str, str]:
        """The settings that are set, as environment variables. A fault to inject is not passed on."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name != "crash_at"}
        values["lake"] = self.lake_uri
        values["umask"] = f"{self.umask:03o}"
        if self.spark_remote:
            del values["spark_master"]
        if "start" not in self.model_fields_set:
            del values["start"]
        return {
            PREFIX + name.upper(): duration_text(value)
            if isinstance(value, timedelta)
            else value.isoformat()
            if isinstance(value, datetime)
            else str(value)
            for name, value in values.items()
            if value is not None
        }


def with_stream_engine(settings: Settings, name: str) -> Settings:
    """The settings with another reader of the stream, as `antenna stream --engine` names it.

    Raises:
        SettingsError: there is no such reader.
    """
    known = get_args(StreamEngine)
    if name not in known:
        raise SettingsError(f"--engine: expected {' or '.join(known)}, found {name!r}")
    return settings.model_copy(update={"stream_engine": name})


def crash_at() -> str | None:
    """`ANTENNA_CRASH_AT`, without loading the other settings: a commit point needs no more."""
    return os.environ.get(f"{PREFIX}CRASH_AT") or None


def s3_endpoint() -> str | None:
    """The address of an S3 that is not Amazon's, from the variables that Amazon's own programs read."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def foreign_variable(name: Literal["JAVA_HOME", "DAGSTER_HOME", "HADOOP_USER_NAME", "HOME"]) -> str | None:
    """A variable of another program that this system respects; None if it is unset or empty."""
    return os.environ.get(name) or None


def start_file(home: Path) -> Path:
    """The file of a state directory that records the first hourly partition."""
    return home / "first-partition"


def _with_recorded_start(settings: Settings) -> Settings:
    file = start_file(settings.home)
    if "start" in settings.model_fields_set or not file.exists():
        return settings
    text = file.read_text(encoding="utf-8").strip()
    try:
        start = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            f"{file}: expected the first hourly partition such as 2026-01-01T00:00:00+00:00, found {text!r}; "
            "remove the file: `antenna up` writes it again"
        ) from error
    recorded = settings.model_copy(update={"start": start.astimezone(UTC)})
    # It is not a setting: another state directory, or a restored ledger, may have another one.
    recorded.model_fields_set.discard("start")
    return recorded


def is_service_variable(name: str) -> bool:
    """Whether Kubernetes sets a variable of this name, for a service whose name begins like our settings."""
    return _SERVICE_VARIABLE.fullmatch(name.removeprefix(PREFIX)) is not None


def load_settings() -> Settings:
    """Read the environment, and the state directory for the first partition.

    Raises:
        SettingsError: a value is invalid, or a variable with our prefix is not a setting.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in os.environ:
        if name.startswith(PREFIX) and name not in known and not is_service_variable(name):
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
            raise SettingsError(f"{name} is not a setting of this system; {hint}")
    try:
        return _with_recorded_start(Settings())
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper() if first["loc"] else "settings"
        raise SettingsError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from error


STORES = ("s3", "gs")
"""The object stores that are supported, by the scheme of their URIs."""


def is_local(place: str) -> bool:
    """Whether this is a path, not a URI."""
    return "://" not in place
