#!/usr/bin/env python3
"""Create the secrets and certificates of docker/compose.yaml: `python3 docker/make_secrets.py demo` or
`secure`.

Everything is random; nothing has a default. Existing files are kept, so that it can be run again; one that is
too short to be ours is refused. It needs only the standard library and the command `openssl`.

The folder is closed to others, but the files in it are readable: the user in a container, who is not their
owner on the host, must read them.
"""

import argparse
import base64
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

LEAST_CHARACTERS = 32
DAYS_OF_AUTHORITY, DAYS_OF_SERVER = 3650, 825
DATABASE = "antenna"
# Logins at PostgreSQL, each with its database. `antenna` owns the tables; each other one has one role.
LOGINS = {
    "antenna": DATABASE,
    "stream": DATABASE,
    "publisher": DATABASE,
    "dashboards": DATABASE,
    "administrator": DATABASE,
    "alerts": DATABASE,
    "watch": DATABASE,
    "superset": "superset",
}
# Logins at Kafka.
KAFKA_LOGINS = ("broker", "owner", "stream", "simulator")


def make_secrets(folder: Path, *, secure: bool, seen_at: str, hosts: dict[str, str]) -> None:
    """Create the files that are missing.

    Args:
        secure: TLS everywhere, and logins for Kafka.
        seen_at: path of the folder for the programs that read it; in a container /run/secrets.
        hosts: addresses of `kafka` and `postgres` for the programs: host names for the certificates, with a
            port where an address needs one.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    passwords = {name: _random(folder / f"password_{name}") for name in LOGINS}
    _random(folder / "superset_secret_key")
    _random(folder / "superset_admin_password")
    _keep(folder / "webhook_secret", "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())
    for name in ("kafka", "postgres"):
        _certificate(folder, name, hosts[name].partition(":")[0])
    tls = f"?sslmode=verify-full&sslrootcert={seen_at}/ca" if secure else ""
    for name, database in LOGINS.items():
        address = f"postgresql://{name}:{passwords[name]}@{hosts['postgres']}/{database}{tls}"
        _keep(folder / f"postgres_{name}", address)
    for name in KAFKA_LOGINS:
        _keep(
            folder / f"kafka_{name}",
            _client(name, _password(folder, name), seen_at, secure),
        )
    # Arguments of `kafka-storage format`, the only way to create the first ones.
    _keep(
        folder / "kafka_logins",
        "".join(
            f'--add-scram "SCRAM-SHA-512=[name={name},password={_password(folder, name)}]"\n'
            for name in KAFKA_LOGINS
            if secure
        ),
    )


def _client(user: str, password: str, seen_at: str, secure: bool) -> str:
    """A properties file for ANTENNA_KAFKA_CONFIG and the `--command-config` of Kafka's tools."""
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


def _password(folder: Path, kafka_login: str) -> str:
    return _random(folder / f"password_kafka_{kafka_login}")


def _random(path: Path) -> str:
    if path.exists() and len(path.read_text(encoding="utf-8").strip()) < LEAST_CHARACTERS:
        raise SystemExit(
            f"{path}: expected {LEAST_CHARACTERS} or more random characters, found fewer; remove the file"
        )
    # URL-safe, as it is used in addresses and properties files. A first letter, so that it is not taken for
    # an option.
    _keep(path, "a" + secrets.token_urlsafe(36))
    return path.read_text(encoding="utf-8").strip()


def _keep(path: Path, text: str) -> None:
    """Write a file atomically, unless it exists."""
    if path.exists():
        return
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o444)
    new.replace(path)


def _certificate(folder: Path, server: str, host: str) -> None:
    """Create the key and certificate of a server, signed by this folder's authority, created if missing."""
    key, authority, authority_key = folder / f"{server}_key", folder / "ca", folder / "ca_key"
    if key.exists():
        return
    for stale in (folder / f"{server}_certificate", folder / f"{server}_key_and_certificate"):
        stale.unlink(missing_ok=True)
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
        # Both in one file, as Kafka expects them.
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
    parser = argparse.ArgumentParser(
        description="Create the secrets and certificates of docker/compose.yaml."
    )
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
