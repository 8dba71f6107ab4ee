"""Weights of eight bits with scales beside them, as ComfyUI saves them: which tensor is a scale, and of what.

`X.weight` in float8 or int8 is multiplied by `X.scale_weight` (beside a marker `scaled_fp8`) or `X.weight_scale`, one
number or one a row. What a layer's numbers are is told by `X.comfy_quant`, JSON in bytes, or for all layers by the
header's `_quantization_metadata`. Scales of the layers' inputs are for arithmetic in float8, and not used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from triptych.errors import WeightsError
from triptych.weights.header import Entry, parsed

__all__ = ["Scale", "apart", "check"]

Places = Mapping[str, tuple[Path, Entry]]

WEIGHTS: Final = ("I8", "F8_E4M3", "F8_E5M2")
NUMBERS: Final = ("F32", "F16", "BF16")
SCALES: Final = (".scale_weight", ".weight_scale")
INPUTS: Final = (".scale_input", ".input_scale")
MARKER: Final = "scaled_fp8"
SAID: Final = ".comfy_quant"
ALL: Final = "_quantization_metadata"
KINDS: Final = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")


@final
@dataclass(frozen=True, slots=True)
class Scale:
    """Where the scale of a weight lies, and what says how the weight is meant, if anything does."""

    place: tuple[Path, Entry]
    said: tuple[Path, Entry] | None = None


def apart(places: Places, metadata: Mapping[str, str]) -> tuple[dict[str, tuple[Path, Entry]], dict[str, Scale]]:
    """The tensors without what only says how others are meant, and the scales by the weights that they are of.

    What is quantised in another way stays as it is. Raises WeightsError where the metadata are no JSON.
    """
    layers = _layers(metadata)
    scales: dict[str, Scale] = {}
    beside: set[str] = set()
    for name, (_, entry) in places.items():
        layer = next((name.removesuffix(end) for end in SCALES if name.endswith(end)), "")
        if f"{layer}.weight" in places and _fits(entry, places[f"{layer}.weight"][1]) and _is_plain(layers.get(layer)):
            scales[f"{layer}.weight"] = Scale(places[name], places.get(layer + SAID))
            beside |= {name, layer + SAID}
    eights = {name for name, (_, entry) in places.items() if entry.dtype in WEIGHTS}
    beside |= {name for name, (_, entry) in places.items() if _is_marker(name, entry) and eights}
    beside |= {name for name in places for end in INPUTS if f"{name.removesuffix(end)}.weight" in eights}
    return {name: place for name, place in places.items() if name not in beside}, scales


def check(name: str, said: bytes, where: Path) -> None:
    """Raises WeightsError where a layer's JSON says that its numbers are meant in a way that is not read."""
    try:
        told = parsed(said)
    except ValueError as problem:
        raise WeightsError(f"{where}: what is said of {name} is broken: {problem}. Download it again.") from problem
    if not _is_plain(told):
        kinds = ", ".join(KINDS)
        raise WeightsError(
            f"{where}: {name} is quantised as {said[:200]!r}; {kinds} are read. Take the file in half precision."
        )


def _layers(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    if ALL not in metadata:
        return {}
    try:
        layers = parsed(metadata[ALL].encode())["layers"]
        if not isinstance(layers, dict):
            raise ValueError("its layers are no table")
    except (ValueError, KeyError, TypeError) as problem:
        raise WeightsError(f"the header's {ALL} is broken: {problem}. Download the file again.") from problem
    return layers


def _is_plain(told: Any) -> bool:
    """Whether numbers are multiplied by their scale and that is all; None is where nothing is said."""
    if told is None:
        return True
    if not isinstance(told, dict) or told.get("format") not in KINDS:
        return False
    within = told.get("params")
    turned = [table.get("convrot") for table in (told, within) if isinstance(table, dict)]
    return not any(turned)


def _fits(scale: Entry, weight: Entry) -> bool:
    """Whether it is one number, or one a row, of a weight of eight bits."""
    lengths = [length for length in scale.shape if length > 1]
    one_each = bool(weight.shape) and lengths == [weight.shape[0]]
    return (
        weight.dtype in WEIGHTS
        and scale.dtype in NUMBERS
        and scale.count > 0 < weight.count
        and (not lengths or one_each)
    )


def _is_marker(name: str, entry: Entry) -> bool:
    return name.rpartition(".")[2] == MARKER and entry.count <= 2
