"""What is quick stays quick: no tensor library before something is computed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import triptych

FAMILY = Path(__file__).parent / "family"


def loaded(code):
    """The heavy modules that a fresh interpreter has loaded after running `code`."""
    heavy = ["torch", "numpy", "PIL", "av", "safetensors", "httpx", "rich.markdown"]
    tail = f"import sys; sys.stderr.write(' '.join(name for name in {heavy} if name in sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(FAMILY)}
    command = [sys.executable, "-c", f"{code}\n{tail}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr.split()


def run(*arguments):
    quiet = "import contextlib, io\nfrom triptych.cli import run\nout = io.StringIO()\n"
    return f"{quiet}with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out): run({list(arguments)})"


@pytest.mark.parametrize(
    "code",
    ["import triptych", "from triptych import types, errors", run("--help"), run("make", "--help"), run("frob")],
    ids=["package", "vocabulary", "help", "help of make", "a wrong command"],
)
def test_nothing_heavy_is_loaded(code):
    assert loaded(code) == []


@pytest.mark.parametrize("command", [["models"], ["make", "x", "-m", "nosuch"], ["make", "", "-m", "toy"], ["resume"]])
def test_cards_are_read_without_tensors(command, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIPTYCH_HOME", str(tmp_path))
    assert "torch" not in loaded(run(*command))


def test_help_takes_less_than_a_third_of_a_second():
    def once():
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "triptych", "--help"], capture_output=True, check=True)
        return time.perf_counter() - began

    assert min(once() for _ in range(7)) < 0.3


def test_every_public_name_is_there():
    for name in triptych.__all__:
        assert getattr(triptych, name) is not None
    assert dir(triptych) == sorted(triptych.__all__)
    assert triptych.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        triptych.nonsense  # noqa: B018


def test_the_layers_hold():
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    found = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
