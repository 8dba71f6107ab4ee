"""Files of small changes at work in networks: in the weights, or beside them.

Merged costs once what live costs in one to three steps, and a copy of the weights that change. Both leave no trace.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from triptych.weights.lora import Key, Use, together
from triptych.weights.lora_changes import Weighed, beside, is_low, put, summed
from triptych.weights.quantize import Packed

__all__ = ["MODES", "Applied", "Live", "Merged"]


class Applied(Protocol):
    """Networks by target, changed by files, and as they were once none is used."""

    def use(self, *uses: Use) -> None:
        """From here on these files, and no others."""
        ...

    def arrived(self, part: str) -> None:
        """This network has its weights anew, as they are without files."""
        ...


@final
class Merged:
    """The files are in the weights. What these were has stepped aside, into main memory, and comes back itself.

    Weights that are views of a file are so never written to. Those of a network that has none yet wait for `arrived`.
    Where weights are held in few bits, which would round changes away, the files act live, and so they do in a network
    that comes block by block: its blocks are read anew in every pass.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._networks = networks
        self._told: Mapping[Key, Weighed] = {}
        self._passing: dict[str, bool] = {}  # whether a network comes block by block
        self._wanted: dict[Key, Weighed] = {}
        self._kept: dict[Key, Tensor] = {}
        self._used: dict[Key, Weighed] = {}
        self._live = Live(networks)

    def use(self, *uses: Use) -> None:
        self._told = together(uses)
        self._act()

    def arrived(self, part: str) -> None:
        self._passing[part] = _passes(self._networks[part])
        for key in [key for key in self._kept if key[0] == part]:
            del self._kept[key], self._used[key]
        self._act()

    def _act(self) -> None:
        live = {key: weighed for key, weighed in self._told.items() if self._is_to_live(key)}
        self._live.act(live)
        self._wanted = {key: weighed for key, weighed in self._told.items() if key not in live}
        for key in self._kept.keys() - self._wanted.keys():
            self._replace(key, self._kept.pop(key))
            del self._used[key]
        for key in self._wanted:
            self._merge(key)

    @torch.no_grad()
    def _merge(self, key: Key) -> None:
        weight, weighed = self._weight(key), self._wanted[key]
        if weight.is_meta or self._used.get(key) == weighed:
            return
        if key not in self._kept:
            self._kept[key] = weight.detach().to("cpu")
        was = self._kept[key].to(weight.device)
        changed = torch.empty_like(was)
        put(changed, was, weighed)
        self._replace(key, changed)
        self._used[key] = weighed

    def _replace(self, key: Key, value: Tensor) -> None:
        weight = self._weight(key)
        if not weight.is_meta:
            weight.data = value.to(weight.device)
            _tell(weight)

    def _weight(self, key: Key) -> nn.Parameter:
        part, name = key
        return self._networks[part].get_parameter(name)

    def _is_to_live(self, key: Key) -> bool:
        part, name = key
        module, _, kind = name.rpartition(".")
        few = kind == "weight" and isinstance(self._networks[part].get_submodule(module), Packed)
        return few or self._passing.get(part, False)


@final
class Live:
    """The weights stay as they are; the files act in every forward pass, and their strengths can change between two."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._networks = networks
        self._seats: dict[Key, Beside | Within] = {}

    def use(self, *uses: Use) -> None:
        self.act(together(uses))

    @torch.no_grad()
    def act(self, wanted: Mapping[Key, Weighed]) -> None:
        """From here on these changes, and no others."""
        for key in self._seats.keys() - wanted.keys():
            self._seats.pop(key).leave()
        for (part, name), weighed in wanted.items():
            module, _, kind = name.rpartition(".")
            layer, seat = self._networks[part].get_submodule(module), self._seats.get((part, name))
            fitting = Beside if kind == "weight" and _runs_beside(layer, weighed) else Within
            if not isinstance(seat, fitting):
                if seat is not None:
                    seat.leave()
                seat = self._seats[part, name] = fitting(layer, kind)
            seat.weigh(weighed)

    def arrived(self, part: str) -> None:
        """Files act beside whatever weights there are."""


MODES: Mapping[str, Callable[[Mapping[str, nn.Module]], Applied]] = MappingProxyType({"merged": Merged, "live": Live})


@final
class Beside:
    """Changes of low rank of a linear layer or a convolution, as two small layers beside it for all files together."""

    def __init__(self, layer: nn.Module, kind: str) -> None:
        self._layer, self._kind = layer, kind
        self._handle = layer.register_forward_hook(self._add)

    def weigh(self, weighed: Weighed) -> None:
        """These changes from here on, with their strengths."""
        weight = self._layer.get_parameter(self._kind)
        self._down, self._rises = beside(weighed, weight.shape[1:])
        if weight.ndim == 4:
            self._down = self._down.to(memory_format=torch.channels_last)
        _tell(weight)

    def leave(self) -> None:
        """The layer as it was."""
        self._handle.remove()
        _tell(self._layer.get_parameter(self._kind))

    def _add(self, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        (x,) = inputs
        if self._down.dtype != x.dtype or self._down.device != x.device:
            self._down = self._down.to(x)
            self._rises = [rise._replace(up=rise.up.to(x)) for rise in self._rises]
        if isinstance(layer, nn.Conv2d):
            h = F.conv2d(x, self._down, None, layer.stride, layer.padding, layer.dilation)
            for row, rank, up in self._rises:
                part = h[:, rank : rank + up.shape[1]]
                output[:, row : row + len(up)] += F.conv2d(part, up[..., None, None])
            return output
        h, flat = F.linear(x, self._down).flatten(0, -2), output.flatten(0, -2)
        for row, rank, up in self._rises:
            flat[:, row : row + len(up)].addmm_(h[:, rank : rank + up.shape[1]], up.T)
        return flat.reshape(output.shape)


@final
class Within:
    """Changes of any kind, added to a layer's weight whenever it is asked for."""

    def __init__(self, layer: nn.Module, kind: str) -> None:
        self._layer, self._kind, self._sum = layer, kind, Sum()
        parametrize.register_parametrization(layer, kind, self._sum, unsafe=True)

    def weigh(self, weighed: Weighed) -> None:
        """These changes from here on, with their strengths."""
        self._sum.weighed = weighed
        _tell(self._layer.get_parameter(f"parametrizations.{self._kind}.original"))

    def leave(self) -> None:
        """The layer as it was."""
        parametrize.remove_parametrizations(self._layer, self._kind, leave_parametrized=False)
        parameters = self._layer._parameters
        for name in [name for name in ("weight", "bias") if name in parameters]:  # in the order that they were in
            parameters[name] = parameters.pop(name)
        _tell(self._layer.get_parameter(self._kind))


@final
class Sum(nn.Module):
    """A weight and its changes."""

    weighed: Weighed = ()

    def forward(self, weight: Tensor) -> Tensor:
        self.weighed = [(change.to(weight.device), strength) for change, strength in self.weighed]
        return summed(weight, self.weighed).to(weight.dtype)


def _passes(network: nn.Module) -> bool:
    """Whether weights are away of a network that has come; what stands for those in few bits always is."""
    few = [name for name, layer in network.named_modules() if isinstance(layer, Packed)]
    standing = {f"{name}.{kind}" for name in few for kind in ("weight", "parametrizations.weight.original")}
    return any(weight.is_meta and name not in standing for name, weight in network.named_parameters())


def _runs_beside(layer: nn.Module, weighed: Weighed) -> bool:
    if isinstance(layer, nn.Conv2d):
        return is_low(weighed) and layer.groups == 1 and layer.padding_mode == "zeros"
    return is_low(weighed) and isinstance(layer, nn.Linear)


def _tell(weight: Tensor) -> None:
    """Raises the weight's version, so that whoever keeps what was computed with it computes it anew."""
    if not weight.is_inference():
        weight.detach()[:0].zero_()
