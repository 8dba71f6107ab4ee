"""Learned changes of low rank beside weights that stay as they are: W + up down (LoRA, arXiv:2106.09685)."""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["LowRank", "adapt", "changes", "merge"]

DOWN, UP = ".low.down", ".low.up"


class LowRank(nn.Module):
    """The change of one weight, of any shape: matrices have its first axis for rows and all others for columns."""

    def __init__(self, shape: torch.Size, rank: int) -> None:
        super().__init__()
        rows, columns = shape[0], math.prod(shape[1:])
        self.down = nn.Parameter(torch.randn(rank, columns) / math.sqrt(columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).reshape(weight.shape)


def adapt(module: nn.Module, rank: int, whole: Collection[str] = ()) -> None:
    """Freezes every matrix and kernel in the module, and gives each a change of this rank that is trained instead.

    whole: names of parts, wherever they stand, that are trained as they are; so are all vectors.
    """
    for name, part in list(module.named_modules()):
        weight = part._parameters.get("weight")
        if weight is None or weight.ndim < 2 or not set(whole).isdisjoint(name.split(".")):
            continue
        weight.requires_grad_(False)
        if min(weight.shape[0], weight[0].numel()) > rank:
            parametrize.register_parametrization(part, "weight", LowRank(weight.shape, rank))


def changes(module: nn.Module) -> dict[str, Tensor]:
    """The trained changes: NAME.low.down (rank, columns) and NAME.low.up (rows, rank) for every weight NAME."""
    found: dict[str, Tensor] = {}
    for name, part in module.named_modules():
        if isinstance(part, LowRank):
            weight = name.replace(".parametrizations.weight.0", ".weight")
            found |= {weight + DOWN: part.down.detach(), weight + UP: part.up.detach()}
    return found


def merge(tensors: Mapping[str, Tensor], changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name with the changes in them. Raises KeyError where a change is of no weight."""
    merged = dict(tensors)
    for name in (name.removesuffix(UP) for name in changed if name.endswith(UP)):
        delta = changed[name + UP].float() @ changed[name + DOWN].float()
        merged[name] = (merged[name].float() + delta.reshape(merged[name].shape)).to(merged[name].dtype)
    return merged
