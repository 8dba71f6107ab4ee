"""A whole trajectory to look at: the result noised forward, and the reverse path with x_t and the predicted x_0.

As a contact sheet (PNG) or as a clip (MP4, GIF, WebP). Latents are shown decoded, or by `projected` where a decoder is
too slow: their three principal axes as red, green and blue.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy
import torch
from PIL import Image
from torch import Tensor

from triptych.engine.path import Path
from triptych.media import image
from triptych.media.sheet import grid
from triptych.media.video import Clip, encode
from triptych.types import Artifact

__all__ = ["MIMES", "Moment", "projected", "trace"]

MIMES = {"png": "image/png", "mp4": "video/mp4", "gif": "image/gif", "webp": "image/webp"}
COLUMNS = 9  # of a contact sheet
SECONDS, REST = 6.0, 1.5  # of a clip: its length at most, and how long the result stays
RATE = 12  # frames per second, at most


@final
@dataclass(frozen=True, slots=True)
class Moment:
    """One step of one sample: x_t and the x_0 that was predicted, both (1, C, *S)."""

    t: float
    x_t: Tensor
    x_0: Tensor


Show = Callable[[Tensor], Tensor]  # latents (B, C, *S) to samples (B, 3, H, W) in [-1, 1]


def trace(
    kind: str, moments: Sequence[Moment], path: Path, eps: Tensor, show: Show, recipe: Mapping[str, Any]
) -> Artifact:
    """kind: one of MIMES; moments: from noise to data; eps: (1, C, *S), the noise that the result is covered with."""
    forward = _forward(moments, path, eps)
    times = [moment.t for moment in reversed(moments)]
    rows = _shown(show, forward), _shown(show, [m.x_t for m in moments]), _shown(show, [m.x_0 for m in moments])
    if kind == "png":
        picture = _contact_sheet(rows, times, recipe)
        return Artifact(MIMES[kind], image.encode(picture, MIMES[kind], recipe), recipe)
    frames = _frames(rows, times)
    rate = min(RATE, max(4, round(len(frames) / SECONDS)))
    held = frames + [frames[-1]] * round(REST * rate)
    clip = Clip(numpy.stack([numpy.asarray(frame) for frame in held]), rate)
    return Artifact(MIMES[kind], encode(clip, MIMES[kind], recipe), recipe)


def projected(latents: Tensor) -> Tensor:
    """(B, C, *S) to (B, 3, *S) in [-1, 1]: their first three principal axes, scaled to two standard deviations."""
    flat = latents.detach().float().movedim(1, -1).flatten(0, -2)  # (positions, C)
    centred = flat - flat.mean(0)
    _, axes = torch.linalg.eigh(centred.T @ centred)
    top = axes[:, -3:].flip(-1)
    top = torch.nn.functional.pad(top, (0, 3 - top.shape[1]))
    signs = torch.where(top.sum(0) < 0, -1.0, 1.0)  # an axis has no direction of its own: fix one
    seen = centred @ (top * signs)
    scaled = (seen / (2 * seen.std(0, correction=0).clamp(min=1e-6))).clamp(-1, 1)
    return scaled.reshape(latents.shape[0], *latents.shape[2:], 3).movedim(-1, 1)


def _forward(moments: Sequence[Moment], path: Path, eps: Tensor) -> list[Tensor]:
    """The result at the times of the reverse path, from data to noise."""
    result = moments[-1].x_t.float()
    times = [torch.tensor(moment.t, dtype=torch.float32) for moment in reversed(moments)]
    return [result if t == 0 else path.perturb(result, eps.to(result), t) for t in times]


def _shown(show: Show, latents: Sequence[Tensor]) -> list[Image.Image]:
    return [picture for x in latents for picture in image.pictures(show(x))]


def _contact_sheet(
    rows: tuple[list[Image.Image], list[Image.Image], list[Image.Image]],
    times: Sequence[float],
    recipe: Mapping[str, Any],
) -> Image.Image:
    chosen = sorted({round(n) for n in numpy.linspace(0, len(times) - 1, min(COLUMNS, len(times)))})
    last = len(times) - 1
    forward, noisy, clean = rows
    request = recipe.get("request", {})
    note = f"{request.get('prompt', '')}   {request.get('sampler', '')}, {len(times)} steps, seed {request.get('seed')}"
    reverse = [(f"t = {times[last - n]:.2f}", n) for n in chosen]
    return grid(
        [
            ("forward: the result, noised", [(f"t = {times[n]:.2f}", forward[n]) for n in chosen]),
            ("reverse: x_t", [(caption, noisy[n]) for caption, n in reverse]),
            ("reverse: the predicted x_0", [(caption, clean[n]) for caption, n in reverse]),
        ],
        note,
    )


def _frames(
    rows: tuple[list[Image.Image], list[Image.Image], list[Image.Image]], times: Sequence[float]
) -> list[Image.Image]:
    """Forward first, then the reverse path; x_t on the left, what it is to become on the right."""
    forward, noisy, clean = rows
    result, back = forward[0], list(reversed(times))
    there = [
        grid([("forward", [(f"x_t, t = {t:.2f}", picture), ("the result", result)])])
        for t, picture in zip(times, forward, strict=True)
    ]
    return there + [
        grid([("reverse", [(f"x_t, t = {t:.2f}", left), ("the predicted x_0", right)])])
        for t, left, right in zip(back, noisy, clean, strict=True)
    ]
