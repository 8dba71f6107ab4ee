"""The command line: commands parse, call the service, print. One handler turns every error into words and a code."""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import typer

from triptych.cli import again, calibrate, choose, costs, doctor, grid, inspect, look, make, models, resume, train
from triptych.errors import Cancelled, TriptychError

__all__ = ["app", "run"]

app = typer.Typer(
    name="triptych",
    help="Images, video and audio by diffusion and flow matching. Start with: triptych make 'a red heart'",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help takes half the time of a pretty one
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    make.make,
    grid.grid,
    models.models,
    choose.choose,
    again.again,
    look.show,
    inspect.inspect,
    calibrate.calibrate,
    resume.resume,
    costs.costs,
    doctor.doctor,
    train.train,
)
for command in COMMANDS:
    app.command()(command)

# Typer carries its own copy of click in some versions and imports click in others; either way this is what every
# complaint about the command line derives from.
Usage: type[Exception] = typer.BadParameter.__mro__[2]


LONGEST = 2000  # characters of a message; a prompt may be in it


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns the exit code: 0 done, 1 failed, 2 wrong usage, 130 cancelled."""
    as_json = "--json" in arguments
    try:
        code = app(list(arguments), prog_name="triptych", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except TriptychError as problem:
        return _report(problem, str(problem), problem.exit_code, as_json)
    except KeyboardInterrupt:
        return _report(Cancelled(), "stopped; nothing was kept.", Cancelled.exit_code, as_json)
    except Usage as problem:
        told = problem.format_message()  # type: ignore[attr-defined]  # see Usage
        return _report(problem, f"{told.rstrip('.')}. See: triptych --help", 2, as_json)
    except typer.Abort:
        return Cancelled.exit_code
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as problem:  # nobody expected it: the traceback goes to a file, a line to the user
        return _report(problem, f"unexpected {type(problem).__name__}: {problem}\n{_log(problem)}", 1, as_json)


def _report(problem: Exception, message: str, code: int, as_json: bool) -> int:
    notes: list[str] = getattr(problem, "__notes__", [])
    if len(message) > LONGEST:
        message = f"{message[:200]} [... {len(message) - 500} characters ...] {message[-300:]}"
    if as_json:
        error = {"kind": type(problem).__name__, "message": message, "notes": notes, "exit_code": code}
        typer.echo(json.dumps({"error": error}))
    else:
        typer.echo("\n".join([f"triptych: {message}", *notes]), err=True)
    return code


def _log(problem: Exception) -> str:
    """Writes the traceback down and says where."""
    from triptych.service.config import config

    text = "".join(traceback.format_exception(problem))
    path = config().logs / f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError:
        return text
    return f"This is a mistake in triptych or in what it runs on. The traceback is in {path}"
