"""triptych grid: a picture for every combination of values, and all of them on one labelled sheet."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

import typer
from typer import Argument, Option

from triptych.cli.flags import PICTURE, flagged
from triptych.cli.options import DryRun, Json, Named, Out, Unpriced, Which
from triptych.errors import RequestError
from triptych.types import dollars

if TYPE_CHECKING:
    from triptych.client import Made, Media
    from triptych.service import Job, Service
    from triptych.sweeps import Cell, Plan

__all__ = ["grid"]

AXIS = "NAME=VALUE,..."
NUMBER = r"-?[\w.]+"  # what may stand in a file's name as it is
X = 'Columns: a field and its values, like steps=10,20; texts are parted by |: prompt="cat|dog" replaces cat by dog'


@flagged(*PICTURE)
def grid(
    prompt: Annotated[str | None, Argument(help="What to make")] = None,
    x: Annotated[str | None, Option("--x", metavar=AXIS, help=X)] = None,
    y: Annotated[str | None, Option("--y", metavar=AXIS, help="Rows: another field, like guidance=3,7")] = None,
    z: Annotated[str | None, Option("--z", metavar=AXIS, help="Several sheets: a third one, like seed=1,2,3")] = None,
    cells: Annotated[Path | None, Option(metavar="FOLDER", help="Keep every cell as a file here")] = None,
    again: Annotated[Path | None, Option(metavar="FILE", help="Make the grid of this sheet once more")] = None,
    model: Which = None,
    out: Out = None,
    as_json: Json = False,
    option: Named = None,
    dry_run: DryRun = False,
    unpriced: Unpriced = False,
    *,
    said: dict[str, Any],
) -> None:
    """Make a grid of pictures, one for every combination of the values along its axes.

    An axis is any field that the model takes: steps, guidance, seed, sampler, spacing, size, strength, negative,
    prompt, or an option by its name. Of prompt the first value is searched for in the prompt, the others replace it.
    """
    from triptych import client, grids
    from triptych.cli import options
    from triptych.cli.before import foretold

    service = client.shared()
    if again is not None:
        plan = _replanned(again, service, {"prompt": prompt, "x": x, "y": y, "z": z, "model": model, **said})
    elif prompt is None or x is None:
        raise RequestError("a grid needs a prompt and --x, or a sheet that is made --again. See: triptych grid --help")
    else:
        card = client.choose(service, model, "image")
        said |= options.options(option or [], card, said)
        plan = grids.planned(card, prompt, {"x": x, "y": y, "z": z}, **said)
    where = _places(out, cells, plan)
    if dry_run:
        foretold(service, [cell.request for cell in plan.cells()], as_json)
    else:
        _produce(service, plan, where, as_json, unpriced)


def _replanned(file: Path, service: "Service", said: dict[str, Any]) -> "Plan":
    """The plan of a sheet; an init, a mask and a device are all that may be said beside it."""
    from triptych import client, grids

    brought = {name: said.pop(name) for name in ("init", "mask", "device")}
    other = [name for name, value in said.items() if value is not None]
    if other:
        raise RequestError(f"{', '.join(other)} given, nothing but init, mask and device allowed beside --again.")
    return grids.replanned(client.recipe(file), service, **brought)


@final
@dataclass(frozen=True, slots=True)
class _Places:
    """Where the sheet goes and, if anywhere, the cells."""

    sheet: Path
    replace: bool
    cells: Path | None


@final
@dataclass(slots=True)
class _Done:
    """What there is so far, by place: what was made, and where its file is, if it has one."""

    made: "dict[tuple[int, int, int], Made]" = field(default_factory=dict)
    files: dict[tuple[int, int, int], Path] = field(default_factory=dict)


def _places(out: str | None, cells: Path | None, plan: "Plan") -> _Places:
    """Raises FileProblem."""
    from triptych.cli import places
    from triptych.media import files

    wanted = places.plan(out, "image")
    if cells is not None:
        files.check_folder(cells)
    name = wanted.name or f"{places.slug(plan.request.prompt)}-grid{wanted.suffix}"
    return _Places(wanted.folder / name, wanted.replace, cells)


def _produce(service: "Service", plan: "Plan", where: _Places, as_json: bool, unpriced: bool) -> None:
    """Makes the cells, then the sheet; what stops half-way leaves a sheet of what is done. Raises TriptychError."""
    from triptych import grids

    done, whole = _Done(), len(plan.cells())
    try:
        _make(service, grids.walk(service, plan, unpriced), plan, where, done)
    except Exception as problem:
        if done.made:
            path = grids.sheet(plan, done.made).save(where.sheet, replace=where.replace)
            problem.add_note(f"Kept: {len(done.made)} of {whole} cells, in {path}.")
            problem.add_note(f"All of it: triptych grid --again {path}")
        raise
    sheet = grids.sheet(plan, done.made)
    path = sheet.save(where.sheet, replace=where.replace)
    _print(plan, sheet, path, done, as_json)


def _make(service: "Service", walk: "Iterator[tuple[Cell, Job]]", plan: "Plan", where: _Places, done: _Done) -> None:
    from rich.console import Console

    from triptych.cli.bar import Bar
    from triptych.cli.produce import Asking
    from triptych.client import Made

    whole = len(plan.cells())
    with Asking(service) as asking, Bar(Console(stderr=True)) as bar:
        for cell, job in walk:
            asking.about(job.id)
            bar.show(job, len(done.made), whole)
            if job.over:
                done.made[cell.at] = Made.of(job)
                if where.cells is not None:
                    [picture] = done.made[cell.at].media
                    done.files[cell.at] = picture.save(where.cells / _name(plan, cell), replace=False)


def _name(plan: "Plan", cell: "Cell") -> str:
    """Of a cell's file: steps-10_guidance-3.5.png."""
    from triptych.cli.places import slug
    from triptych.sweeps import AXES

    said = []
    for axis, number in zip(AXES, cell.at, strict=True):
        if axis in plan.sweeps:
            label = plan.sweeps[axis].labels()[number]
            said.append(f"{plan.sweeps[axis].name}-{label if re.fullmatch(NUMBER, label) else slug(label)}")
    return "_".join(said) + ".png"


def _print(plan: "Plan", sheet: "Media", path: Path, done: _Done, as_json: bool) -> None:
    warnings = list(dict.fromkeys(warning for made in done.made.values() for warning in made.warnings))
    seconds, costs = sum(made.seconds for made in done.made.values()), [made.cost for made in done.made.values()]
    cost = None if None in costs else sum(filter(None, costs))
    if as_json:
        told = {
            "files": [str(path)],
            "axes": plan.told(),
            "cells": [_told(plan, cell, done) for cell in plan.cells()],
            "seconds": round(seconds, 3),
            "cost": cost,
            "warnings": warnings,
            "recipe": sheet.recipe,
        }
        typer.echo(json.dumps(told))
        return
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    for file in done.files.values():
        typer.echo(str(file))
    typer.echo(f"{path}   {' x '.join(str(number) for number in plan.shape if number > 1) or 1} cells")
    paid = ", cost not known" if cost is None else f", {dollars(cost)}" if cost else ""
    typer.echo(f"{seconds:.1f} s{paid}", err=True)


def _told(plan: "Plan", cell: "Cell", done: _Done) -> Mapping[str, Any]:
    made, file = done.made[cell.at], done.files.get(cell.at)
    return {
        "at": list(cell.at),
        "values": dict(zip((one.name for one in plan.sweeps.values()), cell.values, strict=True)),
        "seed": made.recipe["request"].get("seed"),
        "seconds": round(made.seconds, 3),
        "file": str(file) if file else None,
    }
