"""What layers say of a tensor that stays the same over a walk, computed once.

Kept as long as the tensor lives and neither it nor the weights change, unless gradients are wanted.
"""

import weakref
from collections.abc import MutableMapping, Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Kept"]


@final
class Kept:
    """Of one part of a network."""

    def __init__(self) -> None:
        self._kept: MutableMapping[Tensor, tuple[Sequence[_State], torch.dtype, Tensor]] = WeakTensorKeyDictionary()

    def __call__(self, layers: nn.Module, told: Tensor, dtype: torch.dtype) -> Tensor:
        """layers(told), which are told it in this dtype. It is not to be written to."""
        if torch.is_grad_enabled():
            found: Tensor = layers(told.to(dtype))
            return found
        states = [_State(tensor) for tensor in (told, *layers.parameters())]
        kept = self._kept.get(told)
        if kept is None or kept[:2] != (states, dtype):
            kept = self._kept[told] = states, dtype, layers(told.to(dtype))
        return kept[2]


@final
class _State:
    """A tensor as it is now: equal to another of the same tensor as long as nothing has been written to it."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = weakref.ref(tensor)
        self._version = 0 if tensor.is_inference() else tensor._version
        self._kind = tensor.dtype, tensor.device

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _State) or (tensor := self._tensor()) is None:
            return False
        return tensor is other._tensor() and (self._version, self._kind) == (other._version, other._kind)

    __hash__ = None  # type: ignore[assignment]
