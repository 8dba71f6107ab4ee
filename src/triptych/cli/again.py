"""triptych again: what is in a file, made once more."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from triptych.cli.options import Device, Json, Named, Out, Successor, Unpriced

__all__ = ["again"]

Hint = Annotated[Path | None, Option(metavar="FILE", help="What a ControlNet followed, if no longer kept")]


def again(
    file: Annotated[Path, Argument(help="What triptych made, or a picture of AUTOMATIC1111's web UI or ComfyUI")],
    model: Annotated[
        str | None, Option("--model", "-m", help="Which, or where it lies, if not as the file says")
    ] = None,
    out: Out = None,
    init: Annotated[Path | None, Option(metavar="FILE", help="The picture it started from, if no longer kept")] = None,
    mask: Annotated[Path | None, Option(metavar="FILE", help="The mask, if no longer kept")] = None,
    loras: Annotated[
        Path | None,
        Option(metavar="FOLDER", help="Where the LoRAs, ControlNets and refiners lie that another program names"),
    ] = None,
    control: Hint = None,
    control_2: Hint = None,
    control_3: Hint = None,
    device: Device = None,
    option: Named = None,
    successor: Successor = False,
    unpriced: Unpriced = False,
    as_json: Json = False,
) -> None:
    """Make the same again: of triptych's own to the last bit on the same machine, of others as near as can be."""
    from triptych import client
    from triptych.cli import options, places, produce
    from triptych.cli.before import followed

    service = client.shared()
    given: dict[str, Any] = {"init": init, "mask": mask, "control": control, "control_2": control_2}
    given |= {"control_3": control_3, "device": device}
    told = client.retold(file, service, model, loras, **given)
    if successor:
        model = followed(service, told.request.model, as_json)
        told = client.retold(file, service, model, loras, **given)
    if option:  # whose kinds the card of what is in the file tells
        given |= options.options(option, service.card(told.request.model), given)
        told = client.retold(file, service, model, loras, **given)
    plan = places.plan(out, service.card(told.request.model).media, file.suffix.lower())
    produce.produce(
        service, service.submit(told.request, unpriced=unpriced), produce.Wish(plan, as_json=as_json, told=told)
    )
