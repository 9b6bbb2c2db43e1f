"""The file of ANTENNA_KAFKA_CONFIG: what both clients are told of it, and what is said of a wrong one."""

from pathlib import Path

import pytest

from antenna_assets.clients.kafka_config import PLAIN, KafkaConfig, KafkaConfigError, read_kafka_config
from antenna_assets.settings import Settings
from antenna_assets.stack.services import ServicesError, kafka_config

SCRAM = """\
# as for Kafka's own tools
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\
    username="stream" password="s3cr=t:#";
ssl.truststore.type=PEM
ssl.truststore.location={ca}
"""


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.touch()
    return path


def read(folder: Path, text: str) -> KafkaConfig:
    path = folder / "client.properties"
    path.write_text(text, encoding="utf-8")
    return read_kafka_config(path)


def test_librdkafka_is_told_the_login_and_the_authority(tmp_path: Path, ca: Path) -> None:
    assert read(tmp_path, SCRAM.format(ca=ca)).for_librdkafka() == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "stream",
        "sasl.password": "s3cr=t:#",
        "ssl.ca.location": str(ca),
    }


def test_spark_is_told_where_the_texts_are_and_none_of_them(tmp_path: Path, ca: Path) -> None:
    config = read(tmp_path, SCRAM.format(ca=ca))
    place = f"${{file:{tmp_path}/client.properties:"
    assert config.for_spark() == {
        "kafka.config.providers": "file",
        "kafka.config.providers.file.class": "org.apache.kafka.common.config.provider.FileConfigProvider",
        "kafka.security.protocol": f"{place}security.protocol}}",
        "kafka.sasl.mechanism": f"{place}sasl.mechanism}}",
        "kafka.sasl.jaas.config": f"{place}sasl.jaas.config}}",
        "kafka.ssl.truststore.type": f"{place}ssl.truststore.type}}",
        "kafka.ssl.truststore.location": f"{place}ssl.truststore.location}}",
    }
    assert "s3cr" not in repr(config)


def test_without_a_file_nothing_is_changed() -> None:
    assert (PLAIN.for_librdkafka(), PLAIN.for_spark()) == ({"security.protocol": "PLAINTEXT"}, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("security.protocol=PLAINTEXT", {"security.protocol": "PLAINTEXT"}),
        ("security.protocol=SSL", {"security.protocol": "SSL"}),
        (
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config="
            'org.apache.kafka.common.security.plain.PlainLoginModule required username="u" password="p";',
            {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": "u",
                "sasl.password": "p",
            },
        ),
    ],
)
def test_other_protocols_are_told_as_they_are(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    assert read(tmp_path, text).for_librdkafka() == expected


@pytest.mark.parametrize(
    ("there", "here", "message"),
    [
        ("sasl.mechanism", "sasl.mechanisms", "sasl.mechanisms is not known; did you mean sasl.mechanism?"),
        ("# as", "group.id=x\n# as", "group.id is not known; known are security.protocol,"),
        (
            "SASL_SSL",
            "TLS",
            "security.protocol: expected one of SASL_SSL, SSL, SASL_PLAINTEXT, PLAINTEXT, found TLS",
        ),
        ("security.protocol=SASL_SSL", "", "security.protocol: expected one of .*, found none"),
        ("=SASL_SSL", "=SSL", "security.protocol=SSL has no use for sasl.mechanism"),
        ("=SASL_SSL", "=SASL_PLAINTEXT", "SASL_PLAINTEXT has no use for ssl.truststore.type"),
        ("sasl.mechanism=SCRAM-SHA-512", "", "security.protocol=SASL_SSL needs sasl.mechanism"),
        ("SCRAM-SHA-512", "GSSAPI", "sasl.mechanism: expected one of SCRAM-SHA-512, .*, found GSSAPI"),
        (
            "SCRAM-SHA-512",
            "PLAIN",
            r"expected .*PlainLoginModule required .*, found org.apache.*ScramLoginModule",
        ),
        ('"stream"', "stream", "sasl.jaas.config: expected .*, found another text"),
        ("PEM", "JKS", "ssl.truststore.type: expected PEM, found JKS"),
        ("ssl.truststore.type=PEM", "", "ssl.truststore.type: expected PEM, found none"),
        (
            "ca.pem",
            "none.pem",
            "ssl.truststore.location: expected the absolute path of a PEM file, found .*none.pem",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_what_was_expected_and_without_its_password(
    tmp_path: Path, ca: Path, there: str, here: str, message: str
) -> None:
    text = SCRAM.format(ca=ca)
    assert there in text
    with pytest.raises(KafkaConfigError, match=message) as refused:
        read(tmp_path, text.replace(there, here))
    assert "s3cr" not in str(refused.value)
    assert f"ANTENNA_KAFKA_CONFIG: {tmp_path}/client.properties: " in str(refused.value)


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(KafkaConfigError, match="none cannot be read: No such file or directory"):
        read_kafka_config(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"security.protocol=\xff")
    with pytest.raises(KafkaConfigError, match="bytes cannot be read: UnicodeDecodeError"):
        read_kafka_config(tmp_path / "bytes")
    with pytest.raises(KafkaConfigError, match="expected a path without ':' and '}', found a:b"):
        read_kafka_config(Path("a:b"))


def test_the_embedded_kafka_has_no_use_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(ServicesError, match="ANTENNA_KAFKA_CONFIG is for an external Kafka"):
        kafka_config(Settings(home=tmp_path, kafka_config=tmp_path / "client.properties"))
