"""How clients authenticate to Kafka (TLS, SASL): one properties file in the Java client's format.

Spark gets the file's path, not its content, so no plan, log or checkpoint of Spark can contain a password.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from antenna_assets.errors import AntennaError

_PROTOCOL, _MECHANISM, _JAAS = "security.protocol", "sasl.mechanism", "sasl.jaas.config"
_CA_TYPE, _CA = "ssl.truststore.type", "ssl.truststore.location"
_KEYS = (_PROTOCOL, _MECHANISM, _JAAS, _CA_TYPE, _CA)
_PROTOCOLS = ("SASL_SSL", "SSL", "SASL_PLAINTEXT", "PLAINTEXT")
_LOGIN_MODULES = {
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
}
_LOGIN = re.compile(r'([\w.]+)\s+required\s+username="([^"\\]*)"\s+password="([^"\\]*)"\s*;')
# Kafka reads `${file:path:key}` from the file.
_FILE_PROVIDER = {
    "kafka.config.providers": "file",
    "kafka.config.providers.file.class": "org.apache.kafka.common.config.provider.FileConfigProvider",
}


class KafkaConfigError(AntennaError):
    """The file of ANTENNA_KAFKA_CONFIG is invalid; the message says what, and contains no password."""


@dataclass(frozen=True)
class KafkaConfig:
    """A client's security settings. Without a file: a plain connection without a login.

    Args:
        path: the file, under the same path on every machine that runs a part of Spark.
        properties: its content; not shown, as it contains a password.
    """

    path: Path | None = None
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)

    def for_librdkafka(self) -> dict[str, str]:
        """The configuration of a confluent-kafka client."""
        given = self.properties
        config = {"security.protocol": given.get(_PROTOCOL, "PLAINTEXT")}
        if _MECHANISM in given:
            _, user, password = _login(given[_JAAS])
            config |= {"sasl.mechanism": given[_MECHANISM], "sasl.username": user, "sasl.password": password}
        if _CA in given:
            config["ssl.ca.location"] = given[_CA]
        return config

    def for_spark(self) -> dict[str, str]:
        """The options of Spark's Kafka source, whose Kafka client reads the values from the file."""
        if self.path is None:
            return {}
        texts = {f"kafka.{name}": f"${{file:{self.path}:{name}}}" for name in self.properties}
        return {**_FILE_PROVIDER, **texts}


PLAIN = KafkaConfig()


class ConnectionErrors:
    """Error callback of librdkafka: keeps why TLS or a login failed; the request itself only times out."""

    def __init__(self) -> None:
        self.reason = ""

    def __call__(self, error: Any) -> None:
        from confluent_kafka import KafkaError

        if error.code() in (KafkaError._SSL, KafkaError._AUTHENTICATION):
            self.reason = error.str()


def read_kafka_config(path: Path) -> KafkaConfig:
    """Read a properties file, such as Kafka's own tools take as `--command-config`.

    Raises:
        KafkaConfigError: it cannot be read, or a property is unknown, missing, or contradicts the others.
    """
    import javaproperties

    if set(str(path)) & set(":}"):
        raise KafkaConfigError(f"ANTENNA_KAFKA_CONFIG: expected a path without ':' and '}}', found {path}")
    try:
        properties = javaproperties.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise KafkaConfigError(
            f"ANTENNA_KAFKA_CONFIG: {path} cannot be read: "
            f"{getattr(error, 'strerror', None) or type(error).__name__}; "
            "expected a properties file of Kafka's Java client"
        ) from None
    try:
        _require_consistent(properties)
    except ValueError as error:
        raise KafkaConfigError(f"ANTENNA_KAFKA_CONFIG: {path}: {error}") from None
    return KafkaConfig(path, properties)


def _require_consistent(given: Mapping[str, str]) -> None:
    for name in given:
        if name not in _KEYS:
            close = get_close_matches(name, _KEYS, n=1)
            raise ValueError(
                f"{name} is not known; "
                + (f"did you mean {close[0]}?" if close else f"known are {', '.join(_KEYS)}")
            )
    protocol = given.get(_PROTOCOL)
    if protocol not in _PROTOCOLS:
        raise ValueError(f"{_PROTOCOL}: expected one of {', '.join(_PROTOCOLS)}, found {protocol or 'none'}")
    sasl, tls = protocol.startswith("SASL_"), protocol.endswith("SSL")
    for name in (_MECHANISM, _JAAS):
        if (name in given) != sasl:
            raise ValueError(
                f"{_PROTOCOL}={protocol} {'needs' if sasl else 'has no use for'} {name}; "
                f"{'add it' if sasl else 'remove it, or take SASL_SSL'}"
            )
    if sasl:
        _require_login(given[_MECHANISM], given[_JAAS])
    for name in (_CA_TYPE, _CA):
        if name in given and not tls:
            raise ValueError(f"{_PROTOCOL}={protocol} has no use for {name}; remove it, or take SASL_SSL")
    if (_CA in given or _CA_TYPE in given) and given.get(_CA_TYPE) != "PEM":
        raise ValueError(f"{_CA_TYPE}: expected PEM, found {given.get(_CA_TYPE, 'none')}")
    if _CA_TYPE in given and not (
        (authority := Path(given.get(_CA, ""))).is_absolute() and authority.is_file()
    ):
        raise ValueError(f"{_CA}: expected the absolute path of a PEM file, found {given.get(_CA, 'none')}")


def _require_login(mechanism: str, jaas: str) -> None:
    module = _LOGIN_MODULES.get(mechanism)
    if module is None:
        raise ValueError(f"{_MECHANISM}: expected one of {', '.join(_LOGIN_MODULES)}, found {mechanism}")
    try:
        found = _login(jaas)[0]
    except ValueError:
        found = None
    if found != module:
        # Not shown, as it contains a password.
        raise ValueError(
            f'{_JAAS}: expected {module} required username="..." password="..."; (in this order, without '
            f"quotes or backslashes in the values) for {mechanism}, found {found or 'another text'}"
        )


def _login(jaas: str) -> tuple[str, str, str]:
    """Login module, user and password of a JAAS line."""
    match = _LOGIN.fullmatch(jaas.strip())
    if match is None:
        raise ValueError("not a JAAS line with user and password")
    return match[1], match[2], match[3]
