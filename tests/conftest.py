"""What the tests of commands, service and providers share: the toy family, a home of their own, real processes."""

import json
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

# A shell that runs this in the background has it ignore the signal, and processes that it starts inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

FAMILY = Path(__file__).parent / "family"
sys.path.insert(0, str(FAMILY))  # with its entry point, before any card is read
sys.path.append(str(Path(__file__).parent / "weights"))  # whose writers of files other tests use too
sys.path.append(str(Path(__file__).parent / "providers"))  # and whose vendors on this machine


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty TRIPTYCH_HOME and a working folder, and nothing left over of other tests."""
    from triptych import catalogue, client

    place = tmp_path / "home"
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("TRIPTYCH_HOME", str(place))
    monkeypatch.chdir(work)
    for name in accounts():
        monkeypatch.delenv(name, raising=False)
    client.shared.cache_clear()
    yield place
    client.shared.cache_clear()
    catalogue.use(None)


@cache
def accounts():
    """The environment names of every vendor's key, base URL and settings: no test asks with somebody's own."""
    from triptych.providers.wire import tables

    specs = [tables.spec(path.stem) for path in sorted(tables.HERE.glob("*.toml"))]
    return [name for one in specs for names in (one.keys, one.base_urls, *one.settings.values()) for name in names]


@pytest.fixture
def breaks(tmp_path, monkeypatch):
    """Makes the toy codec fail: nan, black, memory, bug; an empty word mends it."""
    path = tmp_path / "breaks"
    monkeypatch.setenv("TOY_BREAKS", str(path))
    return path.write_text


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub on this machine in place of the real one, with an empty cache, and nothing known of another."""
    from played_hub import Hub, point

    from triptych import families

    played = Hub()
    point(monkeypatch, played, tmp_path / "cache")
    known = (families._listed, families._fetched, families._kind_there, families._seen)
    for one in known:
        one.cache_clear()
    yield played
    played.stop()
    for one in known:
        one.cache_clear()


@pytest.fixture
def call(home, capsys):
    """Runs a command in this process: (exit code, stdout, stderr)."""
    from triptych.cli import run

    def called(*arguments):
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return called


@pytest.fixture
def ask(call):
    """Runs a command with --json: (exit code, the object)."""

    def asked(*arguments):
        code, out, _ = call(*arguments, "--json")
        return code, json.loads(out)

    return asked


@pytest.fixture
def process(home):
    """Starts `triptych` as a process of its own."""

    def started(*arguments, **options):
        paths = os.pathsep.join([str(FAMILY), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
        command = [sys.executable, "-m", "triptych", *map(str, arguments)]
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        return subprocess.Popen(command, env=environment, **piped)

    return started
