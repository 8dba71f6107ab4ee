"""A family for tests: the exact denoiser of Gaussian data whose mean is a gradient that the prompt chooses."""

import hashlib
import os
import time
from pathlib import Path

import torch

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Prediction
from triptych.engine.path import Straight
from triptych.model import Model

SPREAD = 0.3  # standard deviation of the data about their mean


class Denoiser:
    path = Straight()

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, x_t, t, cond):
        time.sleep(self.seconds)
        mean = cond.vector[:, :, None, None] * torch.linspace(-1, 1, x_t.shape[-1], device=x_t.device)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        variance = alpha**2 * SPREAD**2 + sigma**2
        x_0 = mean + alpha * SPREAD**2 / variance * (x_t - alpha * mean)
        eps = sigma / variance * (x_t - alpha * mean)
        return Prediction(x_0, eps)


class Codec:
    """Eight samples a latent; decoding fails while the file that TOY_BREAKS names says how."""

    channels, scale_factor = 3, (8, 8)

    def encode(self, x):
        return torch.nn.functional.avg_pool2d(x, 8)

    def decode(self, z):
        breaks = Path(os.environ.get("TOY_BREAKS", "/nonexistent"))
        how = breaks.read_text() if breaks.exists() else ""
        if how == "memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        if how == "bug":
            raise ZeroDivisionError("a mistake")
        x = torch.nn.functional.interpolate(z, scale_factor=8, mode="bilinear")
        return {"nan": x * float("nan"), "black": x * 0 - 1}.get(how, x)


def encode(request, prompt):
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()
    return Conditioning(vector=torch.tensor([[byte / 127.5 - 1 for byte in digest[:3]]]))


def load(card, device, dtype):
    return Model(card, encode, Denoiser(card.settings["seconds"]), Codec())
