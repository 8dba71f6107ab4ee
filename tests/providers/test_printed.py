"""A key that a program prints: asked when it is needed, kept for minutes, never told."""

import stat
import sys

import pytest

from triptych.errors import NotSetUp
from triptych.providers.wire import account
from triptych.providers.wire.account import Secret
from triptych.providers.wire.printed import printed


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program `keys` on the PATH with this body."""

    def written(body):
        path = tmp_path / "keys"
        path.write_text(f"#!{sys.executable}\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path))
        return ["keys", "print"]

    return written


def test_no_program_no_key(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert printed(["keys"]) is None
    assert printed([]) is None


def test_it_is_asked_when_the_key_is_needed_and_again_when_it_is_old(program, tmp_path, monkeypatch):
    count = tmp_path / "count"
    command = program(
        f"with open({str(count)!r}, 'a') as f: f.write('x')\nprint('token-' + open({str(count)!r}).read())"
    )
    key = printed(command)
    assert not count.exists()
    assert key.hide("a token-x") == "a token-x"
    assert [key.reveal(), key.reveal()] == ["token-x", "token-x"]
    assert key.hide("a token-x") == "a [key]"
    assert repr(key) == "[key]"
    monkeypatch.setattr(account, "FRESH", 0.0)
    assert key.reveal() == "token-xx"


@pytest.mark.parametrize(
    "body", ["raise SystemExit(1)", "pass", "print('a\\nb')", "print('sécret')", "print('secret'); raise SystemExit(2)"]
)
def test_a_program_that_gives_no_key_is_told_without_what_it_printed(program, body):
    key = printed(program(body))
    with pytest.raises(NotSetUp, match="`keys print` gives no key") as told:
        key.reveal()
    assert "cret" not in str(told.value)


def test_a_key_that_is_set_is_told_as_it_is():
    assert Secret("abc").reveal() == "abc"
