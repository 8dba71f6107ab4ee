"""A key that a program prints, for where none is set: tokens that live for an hour, like those of gcloud."""

import subprocess
from collections.abc import Sequence
from shutil import which

from triptych.errors import NotSetUp
from triptych.providers.wire.account import Secret

__all__ = ["printed"]

PATIENCE = 60.0  # seconds


def printed(command: Sequence[str]) -> Secret | None:
    """What the command prints, when it is needed; None where there is no such program on the PATH."""
    program = which(command[0]) if command else None
    if program is None:
        return None
    return Secret(lambda: _asked([program, *command[1:]], " ".join(command)))


def _asked(command: Sequence[str], shown: str) -> str:
    """Raises NotSetUp where it prints no key. What it printed is not told: it may be one."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as problem:
        raise NotSetUp(f"`{shown}` gives no key: {type(problem).__name__}. Run it yourself to see why.") from None
    key = done.stdout.strip()
    if done.returncode or not key or not key.isascii() or not key.isprintable():
        why = f"it ended with {done.returncode}" if done.returncode else "it printed no key"
        raise NotSetUp(f"`{shown}` gives no key: {why}. Run it yourself to see why; you may have to log in.")
    return key
