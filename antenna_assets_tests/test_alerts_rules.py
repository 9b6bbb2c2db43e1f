"""The rules of delivery that need no server: back-off, pauses, addresses, secrets, and the file of channels."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antenna_assets.operations.alerts import secret_files
from antenna_assets.operations.alerts.addresses import AddressRefused, targets, why_not
from antenna_assets.operations.alerts.channels import (
    LogChannel,
    SmtpChannel,
    WebhookChannel,
    read_channels,
)
from antenna_assets.operations.alerts.outcome import (
    GIVE_UP_AFTER,
    LONGEST_ERROR,
    LONGEST_PAUSE,
    LONGEST_WAIT,
    Next,
    Outcome,
    after,
    back_off,
    failed,
)
from antenna_assets.operations.alerts.secret_files import SecretUnusable, password, signing_key
from antenna_assets.operations.alerts.webhook import retry_after
from antenna_assets.settings import Settings, SettingsError
from antenna_assets_tests.receivers import key_file, new_key

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("attempts", "wait"),
    [
        (1, 5 * SECOND),
        (2, 10 * SECOND),
        (5, 80 * SECOND),
        (8, 640 * SECOND),
        (9, LONGEST_WAIT),
        (10_000, LONGEST_WAIT),
    ],
)
def test_the_wait_doubles_up_to_a_quarter_of_an_hour_less_up_to_a_half(
    attempts: int, wait: timedelta
) -> None:
    assert back_off(attempts, 1.0) == wait
    assert back_off(attempts, 0.0) == wait / 2


FAILED = Outcome(False, 500, "answered 500")


@pytest.mark.parametrize(
    ("outcome", "since_first", "expected"),
    [
        (Outcome(True, 204), timedelta(0), Next("delivered")),
        (Outcome(True, 204), 10 * GIVE_UP_AFTER, Next("delivered")),
        (FAILED, timedelta(0), Next("waiting", 5 * SECOND)),
        (FAILED, GIVE_UP_AFTER - 5 * SECOND, Next("waiting", 5 * SECOND)),
        (FAILED, GIVE_UP_AFTER - 4 * SECOND, Next("dead")),
        (failed("gone", 410, final=True), timedelta(0), Next("dead")),
        (Outcome(False, 429, "slower", pause=7 * MINUTE), timedelta(0), Next("waiting", 7 * MINUTE)),
    ],
)
def test_what_follows_from_an_attempt(outcome: Outcome, since_first: timedelta, expected: Next) -> None:
    assert after(outcome, attempts=1, since_first=since_first, chance=1.0) == expected


@pytest.mark.parametrize(
    ("text", "pause"),
    [
        ("30", 30 * SECOND),
        (" 30 ", 30 * SECOND),
        ("0", SECOND),
        ("999999", LONGEST_PAUSE),
        ("9" * 5000, LONGEST_PAUSE),
        ("Sun, 22 Nov 2026 10:07:00 GMT", 7 * MINUTE),
        ("Sun, 22 Nov 2026 12:07:00 +0200", 7 * MINUTE),
        ("Sun, 22 Nov 2026 09:00:00 GMT", SECOND),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_PAUSE),
        ("Sun, 22 Nov 2026 10:07:00 -0000", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_a_pause_is_of_seconds_or_until_a_date_and_bounded(text: str | None, pause: timedelta | None) -> None:
    assert retry_after(text, NOW) == pause


@given(st.text() | st.from_regex(r"\w{3}, \d+ \w{3} \d+ \d+:\d+:\d+ [+-]?\w+"))
def test_whatever_a_receiver_writes_is_a_bounded_pause_or_none(text: str) -> None:
    found = retry_after(text, NOW)
    assert found is None or SECOND <= found <= LONGEST_PAUSE


@given(st.text())
def test_an_error_is_one_bounded_line_whatever_a_server_answers(text: str) -> None:
    found = failed(text).error
    assert len(found) <= LONGEST_ERROR
    assert found.isprintable()


@pytest.mark.parametrize(
    "address",
    ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e", "::ffff:93.184.215.14"],
)
def test_a_public_address_is_called(address: str) -> None:
    assert why_not(ipaddress.ip_address(address), allow_private=False) is None


PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "192.0.2.1", "240.0.0.1"),
    *("::1", "fc00::1", "fd12:3456::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:db8::1"),
]
NEVER = [
    "169.254.169.254",
    "fe80::1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "224.0.0.1",
    "ff02::1",
    "0.0.0.0",
    "::",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_called_only_if_the_channel_allows_it(address: str) -> None:
    found = ipaddress.ip_address(address)
    assert why_not(found, allow_private=True) is None
    assert "allow_private" in (why_not(found, allow_private=False) or "")


@pytest.mark.parametrize("address", NEVER)
@pytest.mark.parametrize("allow_private", [True, False])
def test_where_clouds_give_out_credentials_nothing_is_ever_sent(address: str, allow_private: bool) -> None:
    assert (
        why_not(ipaddress.ip_address(address), allow_private=allow_private)
        == "an address that is never called"
    )


@given(st.ip_addresses(v=4))
def test_an_address_within_another_one_is_judged_like_itself(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    for spelled in (
        ipaddress.IPv6Address(0xFFFF << 32 | number),
        ipaddress.IPv6Address(0x64FF9B << 96 | number),
        ipaddress.IPv6Address(0x2002 << 112 | number << 80),
    ):
        for allow_private in (True, False):
            assert why_not(spelled, allow_private=allow_private) == why_not(
                address, allow_private=allow_private
            )


def test_a_name_with_one_private_address_is_refused_with_it() -> None:
    with pytest.raises(AddressRefused, match="localhost is .*, an address that is not public"):
        targets("localhost", 80, allow_private=False)
    assert targets("localhost", 80, allow_private=True)


def test_a_key_is_read_and_never_shown(tmp_path: Path) -> None:
    assert len(signing_key(key_file(tmp_path, new_key()))) == 32
    for wrong in (
        "whsec_" + "QUJD" * 3,
        "whsec_not base64!",
        "QUJD" * 10,
        "",
        "whsec_" + "QUJD" * 30,
        "\xff",
    ):
        with pytest.raises(SecretUnusable) as error:
            signing_key(key_file(tmp_path, wrong))
        assert str(error.value).startswith(f"{tmp_path}/key: expected ")
        assert wrong == "" or wrong not in str(error.value)


def test_a_password_that_is_too_short_is_refused(tmp_path: Path) -> None:
    assert password(key_file(tmp_path, "long-enough-1")) == "long-enough-1"
    with pytest.raises(SecretUnusable, match="expected a password of 12 or more characters, found 5"):
        password(key_file(tmp_path, "short"))
    with pytest.raises(SecretUnusable, match="No such file"):
        password(tmp_path / "missing")


def test_a_secret_that_others_can_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = key_file(folder, new_key())
        for mode in (0o600, 0o640, 0o644):
            # Others cannot enter the folder.
            path.chmod(mode)
            signing_key(path)
        folder.chmod(0o711)
        with pytest.raises(SecretUnusable, match=f"others cannot read; run chmod o= {path}"):
            signing_key(path)
        # Container engines mount them like this.
        monkeypatch.setattr(secret_files, "MOUNTED", folder.resolve())
        signing_key(path)


def written(folder: Path, text: str) -> Settings:
    path = folder / "channels.toml"
    path.write_text(text)
    return Settings(alert_channels=path)


def test_a_file_of_channels_is_read_with_paths_relative_to_it(tmp_path: Path) -> None:
    found = read_channels(
        written(
            tmp_path,
            """
            [channels.ops]
            kind = "webhook"
            url = "https://hooks.example.com/antenna"
            secret_file = "secrets/ops"
            levels = ["warning", "critical"]
            timeout = "5 seconds"

            [channels.mail]
            kind = "smtp"
            host = "mail.example.com"
            from = "antenna@example.com"
            to = ["ops@example.com"]
            user = "antenna"
            password_file = "/etc/antenna/mail"
            kinds = ["quota.raised"]

            [channels.log]
            kind = "log"
            """,
        )
    )
    assert found == {
        "ops": WebhookChannel(
            kind="webhook",
            url="https://hooks.example.com/antenna",
            secret_file=tmp_path / "secrets" / "ops",
            levels=("warning", "critical"),
            timeout=5 * SECOND,
        ),
        "mail": SmtpChannel(
            **{"kind": "smtp", "host": "mail.example.com", "from": "antenna@example.com"},  # type: ignore[arg-type]
            to=("ops@example.com",),
            user="antenna",
            password_file=Path("/etc/antenna/mail"),
            kinds=("quota.raised",),
        ),
        "log": LogChannel(kind="log"),
    }


WEBHOOK = '[channels.ops]\nkind = "webhook"\nsecret_file = "key"\n'
MAIL = '[channels.ops]\nkind = "smtp"\nhost = "mail"\nfrom = "a@example.com"\nto = ["b@example.com"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("channels = 3", "channels: Input should be a valid dictionary"),
        ("[channels]", "channels: Dictionary should have at least 1 item"),
        ("what", "expected TOML: "),
        ("[channel.ops]\nkind = 'log'", "channels: expected a value, found none"),
        ("[channels.Ops]\nkind = 'log'", "channels.Ops"),
        (
            "[channels.ops]\nlevels = ['info']",
            'channels.ops: expected kind = "webhook", "smtp" or "log", found none',
        ),
        (
            "[channels.ops]\nkind = 'slack'",
            'channels.ops: expected kind = "webhook", "smtp" or "log", found another',
        ),
        (
            "[channels.ops]\nkind = 'log'\nlevel = 'info'",
            "channels.ops.level: is no key of this kind of channel",
        ),
        ("[channels.ops]\nkind = 'log'\nlevels = ['loud']", "channels.ops.levels.0: Input should be 'info'"),
        (
            "[channels.ops]\nkind = 'log'\nlevels = []",
            "channels.ops.levels: Tuple should have at least 1 item",
        ),
        (
            "[channels.ops]\nkind = 'webhook'\nurl = 'https://x/'",
            "channels.ops.secret_file: expected a value",
        ),
        (WEBHOOK + "url = 'http://x/'", "channels.ops: url: expected https; over http others can read"),
        (WEBHOOK + "url = 'ftp://x/'", "channels.ops: url: expected https://host/path"),
        (
            WEBHOOK + "url = 'https://u:p@x/'",
            "channels.ops: url: expected https://host/path, without a login",
        ),
        (WEBHOOK + "url = 'https://x:99999/'", "channels.ops: url: expected https://host/path"),
        (WEBHOOK + "url = 'https:///path'", "channels.ops: url: expected https://host/path"),
        (WEBHOOK + "url = 'https://a..b/'", "channels.ops: url: expected https://host/path"),
        (
            WEBHOOK + f"url = 'https://{'a' * 64}.example.com/'",
            "channels.ops: url: expected https://host/path",
        ),
        (MAIL.replace('"mail"', '"a..b"'), "channels.ops.host: expected a host such as mail.example.com"),
        (
            MAIL.replace('"mail"', '"http://mail"'),
            "channels.ops.host: expected a host such as mail.example.com",
        ),
        (WEBHOOK + "url = 'https://x/a b'", "channels.ops: url: expected ASCII without blanks"),
        (
            WEBHOOK + "url = 'https://x/'\ntimeout = '2 hours'",
            "channels.ops.timeout: expected 1 second to 1 minute",
        ),
        (
            WEBHOOK + "url = 'https://x/'\ntimeout = 'soon'",
            "channels.ops.timeout: expected a duration such as",
        ),
        (MAIL + "tls = 'none'", "channels.ops: tls: expected starttls or tls; without it others can read"),
        (MAIL + "user = 'u'", "channels.ops: expected both user and password_file, or neither"),
        (MAIL.replace("b@example.com", "B <b@x>"), "channels.ops.to.0: expected an e-mail address such as"),
        (MAIL.replace("b@example.com", "b@x\\r\\nBcc: c@x"), "channels.ops.to.0: expected an e-mail address"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_its_key(tmp_path: Path, text: str, message: str) -> None:
    settings = written(tmp_path, text)
    with pytest.raises(SettingsError) as error:
        read_channels(settings)
    assert str(error.value).startswith(f"{settings.alert_channels}: {message}")


def test_a_file_that_is_not_set_or_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match="ANTENNA_ALERT_CHANNELS: expected the file .* docs/alerts.md shows one"
    ):
        read_channels(Settings())
    with pytest.raises(
        SettingsError, match=f"{tmp_path}/none: expected the channels of alerts: No such file"
    ):
        read_channels(Settings(alert_channels=tmp_path / "none"))


def test_sixteen_channels_are_enough(tmp_path: Path) -> None:
    text = "".join(f"[channels.c{number}]\nkind = 'log'\n" for number in range(17))
    with pytest.raises(SettingsError, match="at most 16 items"):
        read_channels(written(tmp_path, text))
