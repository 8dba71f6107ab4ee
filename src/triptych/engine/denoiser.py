"""A denoiser splits x_t into both of its halves, x_0 and eps, whatever its network was trained to output.

Targets are linear: the network outputs F = a x_0 + b eps. With x_t = alpha x_0 + sigma eps that is a 2x2 system,

    x_0 = (b x_t - sigma F) / (alpha b - sigma a),   eps = (alpha F - a x_t) / (alpha b - sigma a),

and `solve` is the one place where it is solved, for every target on every path.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

import torch
from einops import reduce
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.path import Path
from triptych.errors import SingularTarget

__all__ = ["TARGETS", "Denoiser", "Network", "NetworkDenoiser", "Prediction", "Target", "broadcast", "solve"]


@final
@dataclass(frozen=True, slots=True)
class Prediction:
    """Both halves of x_t, each shaped like it."""

    x_0: Tensor
    eps: Tensor

    def lerp(self, other: "Prediction", weight: float) -> "Prediction":
        """self + weight (other - self), half by half; weight may lie outside [0, 1]."""
        return Prediction(torch.lerp(self.x_0, other.x_0, weight), torch.lerp(self.eps, other.eps, weight))


class Denoiser(Protocol):
    """From x_t (B, C, *S), t that broadcasts against it and a conditioning, both halves of x_t."""

    @property
    def path(self) -> Path: ...

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction: ...


class Network(Protocol):
    """A U-Net or a transformer of any rank: x (B, C, *S), timestep (B,) in the network's own unit."""

    def __call__(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor: ...


Target = Callable[[Path, Tensor], tuple[Tensor, Tensor]]  # (path, t) -> (a, b) of F = a x_0 + b eps


def data_target(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    """F = x_0."""
    return torch.ones_like(t), torch.zeros_like(t)


def noise_target(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    """F = eps (arXiv:2006.11239)."""
    return torch.zeros_like(t), torch.ones_like(t)


def v_target(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    """F = v = alpha eps - sigma x_0 (arXiv:2202.00512, section 4)."""
    return -path.sigma(t), path.alpha(t)


def flow_target(path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
    """F = dx_t/dt = alpha' x_0 + sigma' eps (arXiv:2210.02747)."""
    return path.velocity(t)


@dataclass(frozen=True)
class KarrasTarget:
    """F = (sigma x_0 - sigma_data^2 (x_t - x_0) / sigma) / (sigma_data sqrt(sigma^2 + sigma_data^2)) for alpha = 1.

    It is the F of arXiv:2206.00364, equation 7, whose c_skip and c_out (table 1) `solve` gives back exactly.
    """

    sigma_data: float = 0.5

    def __call__(self, path: Path, t: Tensor) -> tuple[Tensor, Tensor]:
        sigma = path.sigma(t)
        norm = (sigma.square() + self.sigma_data**2).sqrt()
        return sigma / self.sigma_data / norm, -self.sigma_data / norm


TARGETS: dict[str, Target] = {
    "x_0": data_target,
    "eps": noise_target,
    "v": v_target,
    "flow": flow_target,
    "karras": KarrasTarget(),
}


def solve(path: Path, target: Target, x_t: Tensor, t: Tensor, output: Tensor) -> Prediction:
    """Both halves of x_t (B, C, *S) from a network's output of the same shape.

    Raises SingularTarget where the output says nothing about one half: eps where alpha = 0, x_0 where sigma = 0.
    """
    alpha, sigma = path.alpha(t), path.sigma(t)
    a, b = target(path, t)
    determinant = alpha * b - sigma * a
    if bool((determinant == 0).any()):
        raise SingularTarget(float(t.flatten()[0]))
    x_0 = (b * x_t - sigma * output) / determinant
    eps = (alpha * output - a * x_t) / determinant
    return Prediction(x_0, eps)


def broadcast(t: Tensor, x: Tensor) -> Tensor:
    """t of shape () or (B,) as (B, 1, ..., 1) against x of shape (B, C, *S)."""
    return t.reshape(-1, *[1] * (x.ndim - 1)).expand(x.shape[0], *[1] * (x.ndim - 1))


def thousandth(t: Tensor) -> Tensor:
    """The network's clock of most models: t = 1 is timestep 1000."""
    return 1000 * t


def unscaled(path: Path, t: Tensor) -> Tensor:
    """No input scaling: the network sees x_t itself."""
    return torch.ones_like(t)


@final
class NetworkDenoiser(nn.Module):
    """A network dressed as a denoiser: path, target, clock and input scale are all that it takes."""

    def __init__(
        self,
        network: Network,
        path: Path,
        target: Target,
        timestep: Callable[[Tensor], Tensor] = thousandth,
        scale: Callable[[Path, Tensor], Tensor] = unscaled,
    ) -> None:
        """timestep: t in [0, 1] to the network's own unit; scale: what x_t is multiplied by (EDM's c_in)."""
        super().__init__()
        self.network = network
        self._path, self.target = path, target
        self.timestep, self.scale = timestep, scale

    @property
    def path(self) -> Path:
        return self._path

    def output(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """F of shape (B, C, *S), in float32 or better; t broadcasts against x_t."""
        timestep = self.timestep(t)
        per_sample = timestep if timestep[0].numel() > 1 else timestep.reshape(-1)
        output = self.network(self.scale(self._path, t) * x_t, per_sample, cond.at(t))
        return output.to(x_t.dtype)

    def forward(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        return solve(self._path, self.target, x_t, t, self.output(x_t, t, cond))

    def loss(self, x_0: Tensor, eps: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        """(B,) mean squared errors of the network's own output at times t, (B, 1, ..., 1)."""
        a, b = self.target(self._path, t)
        error = self.output(self._path.perturb(x_0, eps, t), t, cond) - (a * x_0 + b * eps)
        return reduce(error.square(), "batch ... -> batch", "mean")
