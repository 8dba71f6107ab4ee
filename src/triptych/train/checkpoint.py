"""Training state on disk: one safetensors file, written whole or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Checkpoint", "restore", "save"]


@final
@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run is: its modules, their average and the optimiser, after `step` steps."""

    modules: nn.Module
    average: Mapping[str, Tensor]
    optimiser: Optimizer
    step: int


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Writes beside the file and renames: a crash leaves the former checkpoint."""
    tensors = {f"model.{name}": value for name, value in checkpoint.modules.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in checkpoint.average.items()}
    for number, state in checkpoint.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
    temporary = path.with_suffix(".partial")
    contiguous = {name: value.detach().contiguous() for name, value in tensors.items()}
    save_file(contiguous, temporary, metadata={"step": str(checkpoint.step), "format": "1"})
    temporary.replace(path)


def restore(path: Path, modules: nn.Module, optimiser: Optimizer) -> tuple[dict[str, Tensor], int]:
    """Loads modules and optimiser in place; returns their average and the step."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimiser": {}}
    with safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
        for key in file.keys():  # noqa: SIM118  (safe_open is no mapping)
            part, name = key.split(".", 1)
            parts[part][name] = file.get_tensor(key)
    modules.load_state_dict(parts["model"])
    state: dict[int, dict[str, Any]] = {}
    for key, value in parts["optimiser"].items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
    return parts["average"], step
