"""A clean environment: the gateway from its wheel, and distributions that use it from theirs.

Everything is built and installed once for all tests, also where several processes run them. What the gateway
and the tests depend on is found in the environment that runs them; the gateway itself is not, for what is
installed comes first.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "plugins"
ACME = ROOT / "tests" / "thirdparty" / "distribution"

# Run by the Python that has hatchling: as a build frontend would, but all at once.
BUILD = """
import sys
from hatchling.builders.wheel import WheelBuilder

for project in sys.argv[2:]:
    list(WheelBuilder(project).build(directory=sys.argv[1], versions=["standard"]))
"""


def projects() -> list[Path]:
    """The directories of all that is installed."""
    return [ROOT, ACME, *sorted(file.parent for file in EXAMPLES.glob("*/pyproject.toml"))]


@dataclass(frozen=True)
class Environment:
    """A virtual environment."""

    directory: Path

    @property
    def python(self) -> str:
        return str(self.directory / "bin" / "python")

    @property
    def packages(self) -> Path:
        [found] = self.directory.glob("lib/python*/site-packages")
        return found

    def run(self, *arguments: str | Path, cwd: Path | None = None, given: str = "") -> str:
        """What a command of its Python prints, which is given some text to read; it must succeed."""
        return run(self.python, *arguments, cwd=cwd or self.directory, given=given)

    def test(self, *tests: Path, cwd: Path) -> str:
        """What pytest says of tests that are run here, far from the sources; all must pass."""
        options = ("-q", "-W", "error", "-p", "no:cacheprovider", "--import-mode=importlib")
        configuration = cwd / "pytest.ini"
        configuration.write_text("[pytest]\ntrio_mode = true\n", encoding="utf-8")
        return self.run("-m", "pytest", *options, "-c", configuration, *tests, cwd=cwd)

    def install(self, *wheels: Path) -> None:
        pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
        run(*pip, "--python", self.python, "install", "--no-index", "--no-deps", *wheels)


def build(into: Path, *directories: Path) -> list[Path]:
    """The wheels of projects."""
    before = set(into.glob("*.whl"))
    run(sys.executable, "-c", BUILD, into, *directories)
    return sorted(set(into.glob("*.whl")) - before)


def make_environment(directory: Path, *wheels: Path) -> Environment:
    """A new one with these wheels in it, and with what is installed here behind them."""
    run(sys.executable, "-m", "venv", "--without-pip", directory)
    made = Environment(directory)
    made.install(*wheels)
    (made.packages / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return made


@contextmanager
def once(directory: Path) -> Iterator[bool]:
    """Whether this process is the first to come here; the others wait until it is done."""
    directory.mkdir(exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not (directory / "done").exists()
        (directory / "done").touch()


def run(*command: str | Path, cwd: Path | None = None, given: str = "") -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment,
        input=given,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
