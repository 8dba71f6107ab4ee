"""Which layers of a network are held in few bits, and how they come: as they lie in the file, or brought into eight."""

from collections.abc import Callable, Collection, Mapping
from typing import Final, final

import torch
from torch import Tensor, nn

from triptych.errors import InvalidField
from triptych.weights.blocks import FORMS, Rows
from triptych.weights.files import Tensors
from triptych.weights.layouts import Source, same
from triptych.weights.quantize import KINDS, Packed, bytes_of, quantized, worthwhile

__all__ = ["CHOICES", "WHOLE", "FewBits", "fits"]

WHOLE: Final = "whole"
CHOICES: Final = (*KINDS, WHOLE)
"""What can be asked for: that large layers in full precision are brought into eight bits, or that none are in few.

Where nothing is asked for, layers are held as they lie in the file.
"""

Make = Callable[..., Tensor]


@final
class FewBits:
    """The linear layers of a network on the meta device that are held in few bits; each of them is replaced.

    choice: of CHOICES, or None. Raises InvalidField.
    """

    def __init__(
        self,
        network: nn.Module,
        tensors: Tensors,
        sources: Mapping[str, Source],
        dtype: torch.dtype,
        choice: str | None,
    ) -> None:
        if choice not in (None, *CHOICES):
            raise InvalidField("quantize", choice, ", ".join(CHOICES))
        self._tensors, self._choice = tensors, choice
        self._layers: dict[str, Packed] = {}
        self._sources: dict[str, Source] = {}
        self._made: set[str] = set()  # names of those that are brought into eight bits here
        for name, layer in list(network.named_modules()):
            source = sources.get(f"{name}.weight")
            if type(layer) is nn.Linear and source is not None and (form := self._form(name, layer, source)):
                packed = self._layers[name] = Packed(layer, form, dtype)
                self._sources[name] = source
                network.set_submodule(name, packed)

    def names(self) -> set[str]:
        """The weights that are held so."""
        return {f"{name}.weight" for name in self._layers}

    @property
    def made(self) -> Mapping[str, Packed]:
        """The layers that are brought into eight bits here."""
        return {name: layer for name, layer in self._layers.items() if name in self._made}

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes that each of them takes, by the weight's name."""
        return {f"{name}.weight": bytes_of(layer, self._is_scaled(name)) for name, layer in self._layers.items()}

    def is_view(self, name: str) -> bool:
        """Whether the layer of this weight is held as it lies in the file, without a copy."""
        layer = name.removesuffix(".weight")
        return layer in self._layers and layer not in self._made and self._sources[layer].make is same

    def layers(self, names: Collection[str]) -> Mapping[str, Packed]:
        """Those whose weights have these names."""
        return {name: layer for name, layer in self._layers.items() if f"{name}.weight" in names}

    def rows(self, name: str, read: Callable[[str], Tensor], device: str) -> Rows:
        """What the layer of this name is to hold. read: a tensor of the file by name."""
        source = self._sources[name]
        rows = self._brought(read, device, source) if name in self._made else self._as_they_are(source)
        return rows.to(device)

    def _form(self, name: str, layer: nn.Linear, source: Source) -> str | None:
        """What the layer is held in; None where it is in full precision."""
        if self._choice == WHOLE or not set(source.names) <= self._tensors.places.keys():
            return None
        forms = {self._tensors.form(part) for part in source.names}
        form = next(iter(forms))
        shapes = [self._tensors.shape(part) for part in source.names]
        if len(forms) == 1 and form and layer.in_features % FORMS[form].count == 0:
            wide = all(shape[1:].count(1) >= len(shape) - 2 and shape[1] == layer.in_features for shape in shapes)
            if wide and _moves_rows(source.make, [shape[0] for shape in shapes], layer.out_features):
                return form
        if self._choice is None or forms != {None} or not worthwhile(name, layer):
            return None
        self._made.add(name)
        return KINDS[self._choice]

    def _brought(self, read: Callable[[str], Tensor], device: str, source: Source) -> Rows:
        assert self._choice is not None
        return quantized(source.make(*map(read, source.names)).flatten(1).to(device), self._choice)

    def _as_they_are(self, source: Source) -> Rows:
        parts = [self._tensors.rows(part) for part in source.names]
        values = source.make(*(part.values for part in parts))
        if all(part.scale is None for part in parts):
            return Rows(parts[0].form, values)
        scales = [torch.ones(len(part.values), 1) if part.scale is None else part.scale for part in parts]
        return Rows(parts[0].form, values, source.make(*scales))

    def _is_scaled(self, name: str) -> bool:
        return name in self._made or not self._tensors.scales.keys().isdisjoint(self._sources[name].names)


def fits(layer: Packed, rows: Rows) -> bool:
    """Whether rows are those of a layer's weight."""
    form = FORMS[layer.form]
    wanted = (layer.out_features, layer.in_features // form.count * form.size)
    return rows.form == layer.form and rows.values.shape == wanted


def _moves_rows(make: Make, rows: list[int], count: int) -> bool:
    """Whether all that `make` does is to join, cut or move rows, so that it can be done to rows in few bits.

    Seen by doing it to rows that are numbered. count: how many there are to be.
    """
    starts = [sum(rows[:number]) for number in range(len(rows))]
    numbered = [2 * torch.arange(start, start + length)[:, None] for start, length in zip(starts, rows, strict=True)]
    out = make(*(torch.cat([lines, lines + 1], dim=1) for lines in numbered))
    return out.shape == (count, 2) and bool((out[:, 0] % 2 == 0).all() and (out[:, 1] == out[:, 0] + 1).all())
