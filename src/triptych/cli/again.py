"""triptych again: what is in a file, made once more."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from triptych.cli.options import Device, Json, Out

__all__ = ["again"]


def again(
    file: Annotated[Path, Argument(help="A picture that triptych made")],
    out: Out = None,
    init: Annotated[Path | None, Option(metavar="FILE", help="The picture it started from, if no longer kept")] = None,
    mask: Annotated[Path | None, Option(metavar="FILE", help="The mask, if no longer kept")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Make the same again from the recipe in a file: on the same machine, the same to the last bit."""
    from triptych import client
    from triptych.cli import places, produce

    service = client.shared()
    recipe = client.recipe(file)
    request = client.request_of(recipe, service, init=init, mask=mask, device=device)
    plan = places.plan(out, service.cards()[request.model].media, file.suffix.lower())
    produce.produce(service, service.submit(request), produce.Wish(plan, as_json=as_json, recipe=recipe))
