"""What is said before anything is made: what it costs, which model was chosen, what stands in for one that is gone."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from triptych.types import Card, Medium, Price, Request

if TYPE_CHECKING:
    from triptych.service import Service

__all__ = ["chosen", "followed", "foretold"]


def foretold(service: "Service", requests: Sequence[Request], as_json: bool) -> None:
    """Prints what requests to one model would cost together, and one takes of this machine. Raises RequestError where
    one cannot be."""
    price, plan = sum((service.price(one) for one in requests), Price()), service.plan(requests[0])
    model, number = requests[0].model, sum(one.count for one in requests)
    beyond = service.beyond(model, price)
    if as_json:
        told = {"least": price.most if price.least is None else price.least, "most": price.most, "exact": price.exact}
        typer.echo(
            json.dumps(
                {"model": model, "count": number, "price": {**told, "why": price.why}, "plan": plan, "refused": beyond}
            )
        )
        return
    several = f" for {number}" if number > 1 else ""
    typer.echo(f"{model}: {price if price.most else 'free, on this machine'}{several}")
    if plan:
        typer.echo(plan)
    if beyond:
        typer.echo(f"It would be refused: {beyond}", err=True)


def followed(service: "Service", model: str, as_json: bool) -> str:
    """The name of what takes the place of a model that is gone; its own where it is not."""
    card = service.roster.successor(model)
    if not as_json and card.name != model:
        typer.echo(f"{model}: taking {card.name}", err=True)
    return card.name


def chosen(service: "Service", prompt: str, medium: Medium | None, said: Mapping[str, Any], as_json: bool) -> str:
    """The name of the model that the catalogue chooses for a prompt, among those that can be asked now."""
    from triptych.catalogue.choose import Wish, auto
    from triptych.service.config import config

    given = {name: value for name, value in said.items() if value is not None}
    wish = Wish(
        prompt,
        kind=medium,
        budget=config().settings.budgets().call,
        size=(given["width"], given["height"]) if "width" in given else None,
        duration=given.get("duration"),
        count=given.get("count", 1),
        inputs=tuple(name for name in ("init", "last_frame") if name in given),
    )
    cards = service.cards()

    def lacking(name: str) -> str:
        return service.usable(name) or (_refused(cards[name], given) if name in cards else "")

    line = auto(wish, lambda entry: lacking(entry.name))
    if not as_json:
        typer.echo(f"{line.entry.name}: {'; '.join(line.reasons)}", err=True)
    return line.entry.name


def _refused(card: Card, given: Mapping[str, Any]) -> str:
    """What of a request the model does not take; "" where it takes it all."""
    sizes = ("width", "height") if "aspect_ratio" in card.fields else ()  # see triptych.providers.wire.framing
    taken = {*card.fields, *sizes, *(axis.name for axis in card.axes)}
    names = [name.replace("_", "-") for name in given if name not in taken]
    return f"does not take {', '.join(names)}" if names else ""
