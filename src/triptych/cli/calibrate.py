"""triptych calibrate: what the faster ways of a model gain and cost on one's own weights, for --option max_drift."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from triptych.cli.flags import WALK, flagged
from triptych.cli.options import Json, Named

if TYPE_CHECKING:
    from triptych.calibration import Plan
    from triptych.client import Made
    from triptych.providers.here.drift import Table
    from triptych.service import Service

__all__ = ["calibrate"]

Numbers = Annotated[
    list[int] | None, Option("--fast", metavar="N", help="Which to measure; may be repeated; else 2 3 4")
]
Shares = Annotated[
    list[float] | None, Option("--merge", metavar="SHARE", help="Which to measure; may be repeated; else 0.5; 0: none")
]


@flagged(*WALK, "count", "memory", "device", "dtype")
def calibrate(
    model: Annotated[str, Argument(help="A name, or where the weights lie; see: triptych models")],
    prompt: Annotated[list[str] | None, Option("--prompt", metavar="TEXT", help="May be repeated; else four")] = None,
    fast: Numbers = None,
    merge: Shares = None,
    as_json: Json = False,
    option: Named = None,
    *,
    said: dict[str, Any],
) -> None:
    """Measure what a model's faster ways gain and cost, so that --option max_drift=DECIBELS can choose between them."""
    from triptych import calibration, client
    from triptych.cli import options

    service = client.shared()
    card = client.choose(service, model, None)
    said |= options.options(option or [], card, said)
    ways = fast or calibration.FAST, calibration.MERGE if merge is None else merge
    plan = calibration.planned(card, prompt or calibration.PROMPTS, said, *ways)
    made = _make(service, plan)
    table = calibration.measured(plan, made)
    path = calibration.keep(card, table)
    warnings = list(dict.fromkeys(warning for one in made for warning in one.warnings))
    if as_json:
        typer.echo(json.dumps({"model": card.name, "file": str(path), **_told(table), "warnings": warnings}))
    else:
        _print(table, path, warnings)


def _make(service: "Service", plan: "Plan") -> "list[Made]":
    from rich.console import Console

    from triptych import calibration
    from triptych.cli.bar import Bar
    from triptych.cli.produce import Asking
    from triptych.client import Made
    from triptych.errors import TriptychError

    made, whole = list[Made](), len(plan.requests())
    try:
        with Asking(service) as asking, Bar(Console(stderr=True)) as bar:
            for job in calibration.walk(service, plan):
                asking.about(job.id)
                bar.show(job, len(made), whole)
                if job.over:
                    made.append(Made.of(job))
    except TriptychError as problem:
        problem.add_note("No table was kept; one that was measured before stays as it was.")
        raise
    return made


def _told(table: "Table") -> dict[str, Any]:
    rows = [{**row.options, "times": row.times, "median": row.median, "kept": row.kept} for row in table.rows]
    return {"exact": table.exact, "rows": rows, "settings": table.settings}


def _print(table: "Table", path: Path, warnings: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Drawn

    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    drawn = Drawn("way", "seconds", "times faster", "PSNR, median", "nine in ten keep", box=SIMPLE_HEAD)
    drawn.add_row("exact", f"{table.exact:.3g}", "1", "", "")
    for row in table.rows:
        seconds, decibels = table.exact / row.times, (f"{value:.1f} dB" for value in (row.median, row.kept))
        drawn.add_row(_named(row.options), f"{seconds:.3g}", f"{row.times:.2f}", *decibels)
    Console().print(drawn)
    typer.echo(str(path))
    typer.echo("Kept: --option max_drift=DECIBELS chooses the fastest of these by the last column.", err=True)


def _named(options: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in options.items())
