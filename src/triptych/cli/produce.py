"""From a started job to files: the bar, Ctrl-C, saving, and what is said when something goes wrong."""

import json
import os
import signal
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Self, final

import typer

from triptych import client, media
from triptych.cli.places import Plan
from triptych.errors import Cancelled, TriptychError
from triptych.service import Job, Service
from triptych.types import Artifact, dollars

__all__ = ["Asking", "Wish", "produce"]

CLEAR = "triptych costs --clear {} --cost DOLLARS"
AGAIN = "Stopping after this step; Ctrl-C once more stops at once."


@final
@dataclass(frozen=True, slots=True)
class Wish:
    """How the result is to be handed over."""

    plan: Plan
    trace: Path | None = None
    as_json: bool = False
    told: client.Retold | None = None  # of what is made again


def produce(service: Service, start: Coroutine[Any, Any, Job], wish: Wish) -> None:
    """Runs the job, saves what it made and prints where. Raises TriptychError, with notes on what was kept."""
    with Asking(service) as asking:
        job = client.portal().call(start)
        asking.about(job.id)
        last = _watch(service, job.id, wish)
    try:
        made = client.Made.of(last)
        if wish.told is not None:
            made = wish.told.compared(made)
        paths, trace = _save(made, job, wish)
        service.filed(job.id, paths)
    except KeyboardInterrupt:
        raise _told(Cancelled("stopped on request."), service, job.id) from None
    except Exception as problem:
        raise _told(problem, service, job.id) from problem.__cause__
    client.portal().call(service.release(job.id))
    _print(made, paths, trace, wish, service.owed(job.id))


def _watch(service: Service, job_id: str, wish: Wish) -> Job:
    """The job at its end."""
    from rich.console import Console

    from triptych.cli.bar import Bar

    console = Console(stderr=True)
    with Bar(console) as bar, _Aside(wish.plan, console.is_terminal) as aside:
        for job in client.follow(service, job_id):
            bar.show(job)
            aside.show(job)
    return job


@final
class _Aside:
    """Where there is no terminal to show previews in, they go to a file beside the result, gone when it is there."""

    def __init__(self, plan: Plan, terminal: bool) -> None:
        stem = Path(plan.name).stem if plan.name else "triptych"
        self._path = None if terminal else plan.folder / f"{stem}.preview.png"
        self._shown: Artifact | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None and self._shown is not None:
            self._path.unlink(missing_ok=True)

    def show(self, job: Job) -> None:
        from triptych.media import files

        preview = job.progress.preview
        if self._path is None or preview is None or preview is self._shown:
            return
        with suppress(TriptychError):  # a preview is not worth failing for
            self._path = files.write(self._path, preview.data, replace=self._shown is not None, sync=False)
            self._shown = preview


@final
class Asking:
    """Meanwhile the first SIGINT or SIGTERM asks the job to stop, and the second ends the process."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._job = ""
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def about(self, job_id: str) -> None:
        """Which job it is, as soon as that is known."""
        self._job = job_id
        if self._asked:
            self._cancel()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            os._exit(Cancelled.exit_code)
        self._asked = True
        typer.echo(AGAIN, err=True)
        if self._job:
            self._cancel()

    def _cancel(self) -> None:
        client.portal().start(self._service.cancel(self._job))


def _save(made: client.Made, job: Job, wish: Wish) -> tuple[list[Path], Path | None]:
    paths = []
    try:
        wanted = _suited(wish.plan, made).paths(job.request.prompt, _seeds(made))
        for one, path in zip(made.media, wanted, strict=True):
            paths.append(one.save(path, replace=wish.plan.replace))
        trace = made.trace.save(wish.trace) if made.trace is not None and wish.trace is not None else None
    except TriptychError as problem:
        problem.exit_code = 1  # it was computed: the fault is not in what was asked
        for path in paths:
            problem.add_note(f"Saved: {path}")
        raise
    return paths, trace


def _suited(plan: Plan, made: client.Made) -> Plan:
    """The place, under names of our own as the files that a vendor made are: nothing is encoded twice unasked."""
    if "provider" not in made.recipe.get("model", {}):
        return plan
    return replace(plan, suffix=media.extension(made.media[0].artifact.mime))


def _seeds(made: client.Made) -> tuple[int | None, ...]:
    """Each sample's own, of what has one."""
    said = ((one.recipe["request"].get("seed"), one.recipe.get("index", 0)) for one in made.media)
    return tuple(None if seed is None else seed + place for seed, place in said)


def _told(problem: Exception, service: Service, job_id: str) -> Exception:
    """The problem with a note on what the job has kept."""
    kept = service.job(job_id).kept
    if kept:
        problem.add_note(f"Kept: {kept}. Go on with: triptych resume {job_id}")
    elif service.owed(job_id):
        problem.add_note(f"Once you know whether it was charged: {CLEAR.format(job_id)}")
    elif isinstance(problem, Cancelled):
        problem.add_note("Nothing was kept: no sample was finished.")
    return problem


def _print(made: client.Made, paths: list[Path], trace: Path | None, wish: Wish, owed: bool) -> None:
    seeds = _seeds(made)
    if wish.as_json:
        told = {
            "job": made.job,
            "files": [str(path) for path in paths],
            "trace": str(trace) if trace else None,
            "seeds": list(seeds),
            "seconds": round(made.seconds, 3),
            "cost": made.cost,
            "cost_from": made.cost_from,
            "warnings": list(made.warnings),
            "recipe": made.media[0].recipe if len(made.media) == 1 else made.recipe,
        }
        typer.echo(json.dumps(told))
        return
    for warning in made.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for path, seed in zip(paths, seeds, strict=True):
        typer.echo(str(path) if seed is None else f"{path}   seed {seed}")
    if trace is not None:
        typer.echo(f"{trace}   trace")
    unknown = f", cost not known. Once you know: {CLEAR.format(made.job)}" if owed else ""
    typer.echo(f"{made.seconds:.1f} s{_cost(made)}{unknown}", err=True)


def _cost(made: client.Made) -> str:
    told = {"usage": "told by the vendor", "list": "by the price list", "electricity": "of electricity"}
    return f", {dollars(made.cost or 0.0)} {told[made.cost_from]}" if made.cost_from else ""
