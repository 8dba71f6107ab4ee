"""A network out of a file: built without first values, held strictly against the names there, then filled.

What is filled can be emptied again and filled anew: the file, which is mapped, is where it waits.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from triptych.errors import WeightsMismatch
from triptych.weights.files import Tensors
from triptych.weights.layouts import Source, clip, gathered

__all__ = ["Component"]

M = TypeVar("M", bound=nn.Module)


@final
class Component(Generic[M]):
    """One network of a model, which is in memory from `come` to `leave`.

    Every tensor of its file must have its place in it, and it none without one. Raises WeightsMismatch.
    """

    def __init__(
        self,
        build: Callable[[], M],
        tensors: Tensors,
        layout: Callable[[Iterable[str]], Mapping[str, Source]],
        device: str,
        dtype: torch.dtype,
        *,
        idle: re.Pattern[str] = clip.IDLE,
    ) -> None:
        """idle: names in the file that need no place."""
        with torch.device("meta"), _Blank():
            self.module = build().eval().requires_grad_(False)
        self._tensors, self._keep = tensors, partial(_converted, device=device, dtype=dtype)
        self._shapes = {name: tuple(value.shape) for name, value in self.module.state_dict().items()}
        self._sources = layout(self._shapes)
        self.device, self.dtype, self.here = device, dtype, False
        self.arrived: list[Callable[[], None]] = []  # what is done whenever it has come
        self._check(idle)
        self.size = sum(value.numel() * _width(value, dtype) for value in self.module.state_dict().values())

    def _check(self, idle: re.Pattern[str]) -> None:
        used = {name for source in self._sources.values() for name in source.names}
        there = self._tensors.places.keys()
        missing = [n for n in self._shapes if n not in self._sources or not set(self._sources[n].names) <= there]
        left = [name for name in self._tensors.names() if name not in used and not idle.search(name)]
        if missing or left:
            raise WeightsMismatch(self._tensors.where, missing, left)

    def come(self) -> M:
        """The network with its weights. Raises WeightsMismatch where a shape is another, WeightsError.

        They are views of the file until they are converted, one after the other; each lets go of the one before.
        """
        if self.here:
            return self.module
        before: list[str] = []

        def read(name: str) -> Tensor:
            if before:
                self._tensors.release(before.pop())
            before.append(name)
            return self._tensors.read(name)

        found = gathered(self._sources, self._shapes, read, self._keep)
        wrong = [name for name, value in found.items() if tuple(value.shape) != self._shapes[name]]
        if wrong:
            raise WeightsMismatch(self._tensors.where, [], [f"{name} {tuple(found[name].shape)}" for name in wrong])
        actual = {_own(name): name for name in self.module.state_dict()}
        self.module.load_state_dict({actual[name]: value for name, value in found.items()}, assign=True)
        self.module.requires_grad_(False)
        self.here = True
        for done in self.arrived:
            done()
        return self.module

    def leave(self) -> None:
        """The memory is free again."""
        self.module.to("meta")
        self.here = False
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


def _own(name: str) -> str:
    """A weight's name where it has changes within, too."""
    module, _, rest = name.partition(".parametrizations.")
    return f"{module}.{rest.removesuffix('.original')}" if rest else name


def _width(value: Tensor, dtype: torch.dtype) -> int:
    return dtype.itemsize if value.is_floating_point() else value.dtype.itemsize


def _converted(tensor: Tensor, device: str, dtype: torch.dtype) -> Tensor:
    """A weight as it will be used; kernels (O, I, H, W) have their channels last."""
    if not tensor.is_floating_point():
        return tensor.to(device)
    order = torch.channels_last if tensor.ndim == 4 else torch.preserve_format
    return tensor.to(device=device, dtype=dtype, memory_format=order)


@final
class _Blank(TorchFunctionMode):
    """Within it no first values are drawn: others are about to take their place."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        told = kwargs or {}
        return told.get("tensor", *args[:1]) if func in DRAWING else func(*args, **told)


DRAWING = (nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)
