"""Grids of pictures: every cell made one after the other by the service, then one labelled sheet of them all.

    made = triptych.grid("a red apple", x="steps=5,20", y=("guidance", 1, 4.5), seed=1)
    made.cells[20, 4.5].save("best.png"), made.sheet.save("grid.png")

The sheet's recipe is what all cells share and the axes, so that the whole grid can be made again from it.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, final

from triptych import client
from triptych.client import Made, Media, Source
from triptych.errors import InvalidField, PriceUnknown
from triptych.providers.recipe import describe
from triptych.service import Job, Service
from triptych.sweeps import SAID, Cell, Plan, sweep
from triptych.types import Artifact, Card

__all__ = ["Grid", "again", "grid", "planned", "replanned", "sheet", "walk"]

SEEDS = 2**32  # one is drawn for all cells: it is the axes that differ
Along = str | Sequence[Any]  # "steps=10,20", or a name and its values


@final
@dataclass(frozen=True, slots=True)
class Grid:
    """cells: the pictures by their values along x, y and z; sheet: all of them in one picture, with labels."""

    plan: Plan
    cells: Mapping[tuple[Any, ...], Media]
    sheet: Media
    seconds: float
    warnings: tuple[str, ...] = ()


def grid(
    prompt: str,
    *,
    x: Along,
    y: Along | None = None,
    z: Along | None = None,
    model: str | None = None,
    service: Service | None = None,
    **given: Any,
) -> Grid:
    """Makes a picture for every combination of values. given: what all cells share. Raises TriptychError."""
    chosen = service or client.shared()
    card = client.choose(chosen, model, "image")
    return _made(chosen, planned(card, prompt, {"x": x, "y": y, "z": z}, **given))


def again(source: Source, *, service: Service | None = None, **given: Any) -> Grid:
    """Makes the grid once more that is in a sheet's recipe. given: inputs that this machine no longer has.

    Raises TriptychError.
    """
    chosen = service or client.shared()
    return _made(chosen, replanned(client.recipe(source), chosen, **given))


def planned(card: Card, prompt: str, axes: Mapping[str, Along | None], **given: Any) -> Plan:
    """The plan of a grid. Raises InvalidField where an axis says what the card does not take, or what is given too."""
    sweeps = {axis: sweep(said, card, prompt) for axis, said in axes.items() if said is not None}
    fields = {
        name for one in sweeps.values() for name in (("width", "height") if one.field == "size" else (one.field,))
    }
    for name, value in given.items():
        if value is not None and SAID.get(name, name) in fields:
            raise InvalidField(name, value, "it once, and no second time", "It is an axis of the grid.")
    if given.get("count") not in (None, 1):
        raise InvalidField("count", given["count"], "1 in a grid", "Let the seed be an axis: z seed=1,2,3.")
    if given.get("seed") is None and "seed" in card.fields and "seed" not in fields:
        given["seed"] = secrets.randbelow(int(card.fields["seed"].maximum or SEEDS - 1) + 1)
    return Plan(client.request(card, prompt, **given), sweeps)


def replanned(recipe: Mapping[str, Any], service: Service, **given: Any) -> Plan:
    """The plan that a sheet's recipe tells. Raises InvalidField where it is the recipe of something else."""
    if recipe.get("role") != "grid":
        raise InvalidField("grid", "the recipe of one thing", "that of a grid", "Make it with: triptych again")
    request = client.request_of(recipe, service, **given)
    card = service.card(request.model)
    return Plan(request, {axis: sweep(said, card, request.prompt) for axis, said in recipe["grid"].items()})


def walk(service: Service, plan: Plan, unpriced: bool = False) -> Iterator[tuple[Cell, Job]]:
    """Every state of every cell's job; what is made is let go of at the next. Closing the iterator stops it.

    All cells are checked before the first one is made; unpriced: also those of which nobody knows what they cost.
    Raises RequestError.
    """
    cells = plan.cells()
    for cell in cells:
        with suppress(PriceUnknown) if unpriced else nullcontext():
            service.price(cell.request)
    for cell in cells:
        job = client.portal().call(service.submit(cell.request, unpriced=unpriced))
        for now in client.follow(service, job.id):
            yield cell, now
        client.portal().call(service.release(job.id))


def sheet(plan: Plan, cells: Mapping[tuple[int, int, int], Made]) -> Media:
    """The picture of a grid, its recipe inside. cells: what there is, by place; one at least."""
    from triptych.media import grid as drawing
    from triptych.media import image

    first = next(iter(cells.values())).recipe
    told = {**first, "role": "grid", "request": describe(plan.request), "grid": plan.told()}
    axes = {axis: (one.name.replace("_", " "), one.labels()) for axis, one in plan.sweeps.items()}
    shown = {at: made.media[0].picture() for at, made in cells.items()}
    caption = plan.request.prompt, _shared(plan, first["request"])
    picture = drawing.draw(shown, plan.shape, axes, caption)
    return Media(Artifact("image/png", image.encode(picture, "image/png", told), told))


def _made(service: Service, plan: Plan) -> Grid:
    made: dict[tuple[int, int, int], Made] = {}
    found: dict[tuple[Any, ...], Media] = {}
    for cell, job in walk(service, plan):
        if job.over:
            made[cell.at] = Made.of(job)
            found[cell.values] = made[cell.at].media[0]
    warnings = tuple(dict.fromkeys(warning for one in made.values() for warning in one.warnings))
    return Grid(plan, found, sheet(plan, made), sum(one.seconds for one in made.values()), warnings)


def _shared(plan: Plan, asked: Mapping[str, Any]) -> str:
    """What all cells have in common, in a line. asked: the request of one of them, resolved."""
    fields = {one.field for one in plan.sweeps.values()}
    names = {
        "seed": "seed {}",
        "steps": "{} steps",
        "guidance_scale": "guidance {:g}",
        "sampler": "{}",
        "spacing": "{}",
    }
    found = [form.format(asked[name]) for name, form in names.items() if name in asked and name not in fields]
    return ", ".join([asked["model"], *found])
