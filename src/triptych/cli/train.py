"""triptych train: a recipe run to its weights, with a bar, to be stopped and gone on with at will."""

import json
import os
import signal
import time
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Self, cast, final

import typer

from triptych.cli.options import Json
from triptych.errors import Cancelled, FileProblem, RequestError

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.progress import TaskID

    from triptych.train.loop import TrainProgress

__all__ = ["train"]

CHECKPOINT = "checkpoint.safetensors"


def train(
    recipe: Annotated[str, typer.Argument(help="A .toml file, or the name of one that ships: mini-image")],
    folder: Annotated[Path | None, typer.Option(metavar="PATH", help="For data, checkpoints and weights")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint (default)")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew; old checkpoints are renamed")] = False,
    as_json: Json = False,
) -> None:
    """Train a model from a recipe. Stopped with Ctrl-C, the same command goes on from the last checkpoint."""
    from triptych.service.config import config

    if resume and fresh:
        raise RequestError("--resume and --fresh given; one of them allowed.")
    path = _find(recipe)
    place = folder or config().training / path.stem
    _make(place)
    there = sorted(place.glob(f"**/{CHECKPOINT}"))
    if resume and not there:
        raise FileProblem(f"there is no checkpoint in {place} to go on from. Leave out --resume to begin.")
    if fresh:
        _aside(there)
    last = _run(path, place)
    told = {"folder": str(place), "steps": last.step if last else 0, "loss": last.loss if last else None}
    typer.echo(json.dumps(told) if as_json else f"Done: the weights are in {place}")


def _find(recipe: str) -> Path:
    """Raises UnknownName, or RequestError where the packages that training needs are not installed."""
    try:
        from triptych.train.recipe import find
    except ModuleNotFoundError as problem:
        raise RequestError(f"training needs {problem.name}: pip install 'triptych[train]'") from problem
    return find(recipe)


def _make(folder: Path) -> None:
    from triptych.media import files

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise FileProblem(f"cannot make the folder {folder}: {problem.strerror}. Name another: --folder.") from problem
    files.check_folder(folder)


def _aside(checkpoints: list[Path]) -> None:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for path in checkpoints:
        path.rename(path.with_name(f"checkpoint-until-{stamp}.safetensors"))


def _run(path: Path, folder: Path) -> "TrainProgress | None":
    """Every step with its bar; raises Cancelled after the step in which somebody asked."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from triptych.train.recipe import train as work

    told = TextColumn("loss {task.fields[loss]:.4f}, {task.fields[speed]:.3g} samples/s")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), told)
    tasks: dict[str, TaskID] = {}
    now: TrainProgress | None = None
    events = cast("Generator[TrainProgress, None, None]", work(path, folder))
    try:
        with Progress(*columns, console=Console(stderr=True)) as bar, closing(events), _Asked() as asked:
            for now in events:
                task = tasks.get(now.stage)
                if task is None:
                    task = tasks[now.stage] = bar.add_task(now.stage, total=now.steps, loss=0.0, speed=0.0)
                bar.update(task, completed=now.step, loss=now.loss, speed=now.samples_per_second)
                asked.check()
    except KeyboardInterrupt:
        raise _stopped(folder) from None
    return now


@final
class _Asked:
    """From the first step on, Ctrl-C waits until the step is over, so that no checkpoint is cut in half."""

    def __init__(self) -> None:
        self._before: Any = None
        self._asked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Raises KeyboardInterrupt where it was asked for."""
        if self._asked:
            raise KeyboardInterrupt
        if self._before is None:
            self._before = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            os._exit(Cancelled.exit_code)
        self._asked = True
        typer.echo("Stopping after this step; Ctrl-C once more stops at once.", err=True)


def _stopped(folder: Path) -> Cancelled:
    there = sorted(folder.glob(f"**/{CHECKPOINT}"), key=lambda path: path.stat().st_mtime)
    problem = Cancelled("stopped on request.")
    if not there:
        problem.add_note(f"No checkpoint was written yet; the data stay in {folder}")
        return problem
    ago = round((time.time() - there[-1].stat().st_mtime) / 60)
    problem.add_note(f"Kept: {there[-1]}, {ago} minutes old. The same command goes on from there.")
    return problem
