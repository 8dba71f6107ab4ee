"""What flows into a node of ComfyUI that samples: a model and what changes it, prompts, and what it starts from."""

from collections.abc import Iterator
from typing import Any, Final

from triptych.foreign.graph import Graph, Node
from triptych.foreign.told import Hint, Lora, short

__all__ = ["given_hints", "given_latent", "given_model", "given_prompt", "given_skip"]

MODELS: Final = ("ckpt_name", "unet_name", "model_name", "gguf_name", "base_ckpt_name")
LATENTS: Final = ("latent_image", "samples", "latent", "latents")
PICTURES: Final = ("pixels", "image", "images")


def given_model(graph: Graph, guider: Node, lost: list[str]) -> tuple[str, tuple[Lora, ...], dict[str, Any]]:
    """(the model's file, LoRAs in their order, options)."""
    model, loras, options = "", list[Lora](), dict[str, Any]()
    for node in _chain(graph, guider, ("model",)):
        found = _loras(graph, node)
        loras = found + loras
        multiplier = graph.value(node, "multiplier", float)
        files = (graph.value(node, name, str) for name in MODELS)
        if named := next(filter(None, files), None):
            model = named
        elif node.kind == "RescaleCFG" and multiplier is not None:
            options["guidance_rescale"] = multiplier
        elif not found and "lora" not in node.kind.lower():
            lost.append(f"{node}: what it does to the model has no equivalent here.")
    if not model:
        lost.append("model: the node that loads it is not known here.")
    return model, tuple(loras), options


def _loras(graph: Graph, node: Node) -> list[Lora]:
    """Those that a node loads: one as ComfyUI's own does, or several in a list."""
    found = []
    for value in node.inputs.values():
        match value:
            case {"on": True, "lora": str(file), "strength": (int() | float()) as weight}:
                found.append(Lora(file, float(weight), float(weight)))
    name = graph.value(node, "lora_name", str)
    if name and name != "None":
        weights = (graph.value(node, key, float) for key in ("strength_model", "strength_clip"))
        found.append(Lora(name, *(1.0 if weight is None else weight for weight in weights)))
    return found


def given_prompt(graph: Graph, guider: Node, role: str, lost: list[str]) -> tuple[str, Node | None]:
    """(the text, the node that encodes it) of the positive or the negative prompt."""
    if guider.kind == "BasicGuider" and role == "negative":
        return "", None
    before = "conditioning", "conditioning_1", "conditioning_to", "base_positive" if role == "positive" else ""
    for node in _chain(graph, guider, (role, *before)):
        texts = {name: graph.value(node, name, str) for name in ("text", "text_g", "text_l", "clip_l", "t5xxl", role)}
        said = list(dict.fromkeys(text for text in texts.values() if text is not None))
        if said:
            _several(node, said, lost)
            return said[0], node
        if _is_hinted(graph, node):
            continue
        if node.kind == "ConditioningZeroOut" and role == "negative":
            lost.append(f"{node}: the negative prompt is zeros there; here nothing is said.")
            return "", node
        lost.append(f"{node}: what it does to the {role} prompt has no equivalent here.")
    lost.append(f"{role} prompt: the node that says it is not known here; nothing is said.")
    return "", None


def given_hints(graph: Graph, guider: Node, lost: list[str]) -> tuple[Hint, ...]:
    """What ControlNets follow, those nearest to the prompt first."""
    found = []
    for node in _chain(graph, guider, ("positive", "conditioning")):
        if not _is_hinted(graph, node):
            continue
        loader = graph.at(node, "control_net")
        net = "" if loader is None else graph.value(loader, "control_net_name", str)
        if not net:
            lost.append(f"{node}: the node that loads its ControlNet is not known here; it is not run.")
            continue
        picture, knobs = graph.at(node, "image"), ("strength", "start_percent", "end_percent")
        shown = "a picture that is not named" if picture is None else _picture(graph, picture)[0]
        values = (graph.value(node, name, float) for name in knobs)
        numbers = (usual if value is None else value for value, usual in zip(values, (1.0, 0.0, 1.0), strict=True))
        found.append(Hint(net, shown, *numbers))
    return tuple(found[::-1])


def _is_hinted(graph: Graph, node: Node) -> bool:
    return node.kind.startswith("ControlNetApply") and graph.at(node, "control_net") is not None


def _several(node: Node, said: list[str], lost: list[str]) -> None:
    if len(said) > 1:
        lost.append(f"{node}: text towers are told one text here; not told is {short(said[1])!r}.")
    if node.kind.startswith("CLIPTextEncodeSDXL") and any(node.inputs.get(name) for name in ("crop_w", "crop_h")):
        lost.append(f"{node}: the network is told of no crop here.")


def given_skip(graph: Graph, speaking: Node | None) -> int | None:
    """Which layer of the text towers is attended to, counted from the last; None where it is the usual one."""
    chain = () if speaking is None else _chain(graph, speaking, ("clip",))
    layers = (graph.value(node, "stop_at_clip_layer", int) for node in chain)
    return next((-layer for layer in layers if layer is not None and layer < 0), None)


def given_latent(graph: Graph, first: Node, lost: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """(size and count, what it starts from by the input's name in words)."""
    fields, inputs = dict[str, Any](), dict[str, str]()
    for node in _chain(graph, first, LATENTS):
        count = graph.value(node, "batch_size", int) or graph.value(node, "amount", int)
        if count is not None and count > 1:
            fields["count"] = fields.get("count", 1) * count
            lost.append(f"{node}: {count} pictures at once, and which of them this is was not written down.")
        if graph.at(node, "mask") is not None:
            inputs["mask"] = f"what {node} is masked by"
        picture = next((one for name in PICTURES if (one := graph.at(node, name))), None)
        if picture is not None:
            inputs["init"], size = _picture(graph, picture)
            fields |= size
            break
        fields = _size(graph, node) | fields
        if any(name in node.inputs for name in LATENTS) and node.kind not in (
            "SetLatentNoiseMask",
            "RepeatLatentBatch",
        ):
            lost.append(f"{node}: what it does to latents has no equivalent here.")
    if "mask" in inputs:
        lost.append("mask: one is laid as it is, neither grown nor blurred.")
    return fields, inputs


def _picture(graph: Graph, picture: Node) -> tuple[str, dict[str, int]]:
    """(which file a picture comes from, the size that it was brought to)."""
    behind = list(graph.behind([picture], without=("model", "clip", "vae")))
    sizes = (_size(graph, node) for node in behind)
    loaded = (node.inputs.get("image") for node in behind if node.kind.startswith("LoadImage"))
    name = next((name for name in loaded if isinstance(name, str)), None)
    shown = "a picture that is not named" if name is None else f"the file {short(name)}"
    return shown, next((size for size in sizes if size), {})


def _size(graph: Graph, node: Node) -> dict[str, int]:
    found = {name: graph.value(node, name, int) for name in ("width", "height")}
    return {name: value for name, value in found.items() if value}


def _chain(graph: Graph, start: Node, names: tuple[str, ...]) -> Iterator[Node]:
    """The nodes behind an input of these names, one after the other, each by the first such input of its own."""
    node, seen = start, {start.id}
    while True:
        found = next((one for name in names if (one := graph.at(node, name)) is not None), None)
        if found is None or found.id in seen:
            return
        seen.add(found.id)
        yield found
        node = found
