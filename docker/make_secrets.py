#!/usr/bin/env python3
"""Makes the secrets and certificates of docker/compose.yaml: `python3 docker/make_secrets.py demo` or `secure`.

Everything is random; nothing has a default. A file that exists is kept, so that running it again is harmless; a text that
is too short to be one of ours is refused. It needs the standard library and the command `openssl`.

The folder is closed to others, and the files in it are not: a container's user must read them, and a file's owner on the
host is somebody else in the container.
"""

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

LEAST_CHARACTERS = 32
DAYS_OF_AUTHORITY, DAYS_OF_SERVER = 3650, 825
DATABASE = "antenna"
# Who logs in at PostgreSQL, and the database that it uses. `antenna` owns the tables; each other one has one role.
LOGINS = {
    "antenna": DATABASE,
    "stream": DATABASE,
    "publisher": DATABASE,
    "dashboards": DATABASE,
    "administrator": DATABASE,
    "superset": "superset",
}
# Who logs in at Kafka.
KAFKA_LOGINS = ("broker", "owner", "stream", "simulator")


def make_secrets(folder: Path, *, secure: bool, seen_at: str, hosts: dict[str, str]) -> None:
    """Make what is missing.

    Args:
        secure: TLS everywhere, and a login for Kafka.
        seen_at: where the programs find the folder's files; in a container /run/secrets.
        hosts: where the programs find `kafka` and `postgres`: names for the certificates, with a port for addresses.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    passwords = {name: _random(folder / f"password_{name}") for name in LOGINS}
    _random(folder / "superset_secret_key")
    _random(folder / "superset_admin_password")
    for name in ("kafka", "postgres"):
        _certificate(folder, name, hosts[name].partition(":")[0])
    entered = f"?sslmode=verify-full&sslrootcert={seen_at}/ca" if secure else ""
    for name, database in LOGINS.items():
        address = f"postgresql://{name}:{passwords[name]}@{hosts['postgres']}/{database}{entered}"
        _keep(folder / f"postgres_{name}", address)
    for name in KAFKA_LOGINS:
        _keep(
            folder / f"kafka_{name}",
            _client(name, _random(folder / f"password_kafka_{name}"), seen_at, secure),
        )
    # Arguments of `kafka-storage format`, which knows no other way to make the first logins.
    _keep(
        folder / "kafka_logins",
        "".join(
            f'--add-scram "SCRAM-SHA-512=[name={name},password={_random(folder / f"password_kafka_{name}")}]"\n'
            for name in KAFKA_LOGINS
            if secure
        ),
    )


def _client(user: str, password: str, seen_at: str, secure: bool) -> str:
    """A properties file such as ANTENNA_KAFKA_CONFIG and Kafka's own `--command-config` take."""
    if not secure:
        return "security.protocol=PLAINTEXT\n"
    return (
        "security.protocol=SASL_SSL\n"
        "sasl.mechanism=SCRAM-SHA-512\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username="{user}" password="{password}";\n'
        "ssl.truststore.type=PEM\n"
        f"ssl.truststore.location={seen_at}/ca\n"
    )


def _random(path: Path) -> str:
    if path.exists() and len(path.read_text(encoding="utf-8").strip()) < LEAST_CHARACTERS:
        raise SystemExit(
            f"{path}: expected {LEAST_CHARACTERS} or more random characters, found fewer; remove the file"
        )
    # URL-safe: it stands in addresses and in properties files as it is. It starts with a letter, as an option does not.
    _keep(path, "a" + secrets.token_urlsafe(36))
    return path.read_text(encoding="utf-8").strip()


def _keep(path: Path, text: str) -> None:
    """Write a file as a whole, if there is none."""
    if path.exists():
        return
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o444)
    new.replace(path)


def _certificate(folder: Path, server: str, host: str) -> None:
    """A server's key and certificate, signed by the authority of this folder, which is made at the first call."""
    key, authority, authority_key = folder / f"{server}_key", folder / "ca", folder / "ca_key"
    if key.exists():
        return
    for of_a_former_key in (folder / f"{server}_certificate", folder / f"{server}_key_and_certificate"):
        of_a_former_key.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        if not authority.exists():
            _openssl(
                *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"),
                *("-days", str(DAYS_OF_AUTHORITY), "-subj", "/CN=Antenna lakehouse"),
                *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
                *("-keyout", str(work / "ca_key"), "-out", str(work / "ca")),
            )
            _keep(authority_key, (work / "ca_key").read_text(encoding="ascii"))
            authority_key.chmod(0o400)
            _keep(authority, (work / "ca").read_text(encoding="ascii"))
        kind = "IP" if host.replace(".", "").isdigit() else "DNS"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"),
            *(
                "-days",
                str(DAYS_OF_SERVER),
                "-subj",
                f"/CN={server}",
                "-addext",
                f"subjectAltName={kind}:{host}",
            ),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"),
            *("-CA", str(authority), "-CAkey", str(authority_key)),
            *("-keyout", str(work / "key"), "-out", str(work / "certificate")),
        )
        certificate = (work / "certificate").read_text(encoding="ascii")
        _keep(folder / f"{server}_certificate", certificate)
        # Both in one, as Kafka takes it.
        _keep(
            folder / f"{server}_key_and_certificate", (work / "key").read_text(encoding="ascii") + certificate
        )
        _keep(key, (work / "key").read_text(encoding="ascii"))


def _openssl(*arguments: str) -> None:
    try:
        done = subprocess.run(("openssl", *arguments), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SystemExit("expected the command openssl, found none; install the package openssl") from None
    if done.returncode:
        raise SystemExit(f"openssl {arguments[0]} failed: {done.stderr.strip()}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes the secrets and certificates of docker/compose.yaml.")
    parser.add_argument("profile", choices=("demo", "secure"))
    parser.add_argument("--folder", type=Path, help="default: docker/secrets/PROFILE")
    parser.add_argument("--seen-at", default="/run/secrets", help="where the programs find the files")
    parser.add_argument("--kafka", default="kafka", help="where the programs find Kafka")
    parser.add_argument("--postgres", default="postgres:5432", help="where the programs find PostgreSQL")
    given = parser.parse_args()
    folder = given.folder or Path(__file__).resolve().parent / "secrets" / given.profile
    os.umask(0o077)
    make_secrets(
        folder,
        secure=given.profile == "secure",
        seen_at=given.seen_at,
        hosts={"kafka": given.kafka, "postgres": given.postgres},
    )
    sys.stdout.write(f"secrets are in {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
