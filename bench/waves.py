"""Should a codec of sounds keep phases? Two codecs of one rate, trained for the same time on the same clips.

    python bench/waves.py --folder DATA [--minutes 10]

Both give 320 numbers for 4,096 samples. One is `Spectral`, which keeps magnitudes; the other folds waves themselves and
is trained on their absolute error and the multi-resolution STFT loss (arXiv:1910.11480). Measured as `sound.py` does.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from sound import HELD_OUT, LENGTH, clips, mel_distance, multi_resolution, si_sdr
from torch import Tensor, nn

from triptych.engine.codecs.folded import Folded
from triptych.engine.codecs.spectral import Spectral
from triptych.train.batches import Batch, heard, stream
from triptych.train.data.sounds import Sounds, build
from triptych.train.tasks import SpectralTask

PARTS, CLIPS = 8, 2  # parts that each clip is cut into, clips a step
NOISE = 0.05


def magnitudes(x: Tensor, window: int) -> Tensor:
    shape = torch.hann_window(window)
    return torch.stft(x[:, 0], window, window // 4, window=shape, return_complex=True).abs().clamp(min=1e-4)


def apart(x: Tensor, y: Tensor) -> Tensor:
    """The multi-resolution STFT loss, and the absolute error."""
    total = (x - y).abs().mean()
    for window in (512, 1024, 2048):
        a, b = magnitudes(x, window), magnitudes(y, window)
        total = total + (a - b).norm() / a.norm() + (a.log() - b.log()).abs().mean()
    return total


def of_waves(codec: Folded, batch: Batch, generator: torch.Generator) -> Tensor:
    x = batch.samples.reshape(CLIPS * PARTS, 1, -1)
    with torch.autocast("cpu", torch.bfloat16):
        features = codec.features(x).float()
        codec.measure(features.detach(), 0.01)
        z = (features - features.mean((0, 2), keepdim=True)) / (features.std((0, 2), keepdim=True) + 1e-5)
        y = codec.decode(z + NOISE * torch.randn(z.shape, generator=generator))
    return apart(x, y)


def train(codec: nn.Module, loss: Callable[[Batch, torch.Generator], Tensor], folder: Path, seconds: float) -> int:
    """Steps taken in that time, the rate falling to zero over its second half."""
    optimiser = torch.optim.AdamW(codec.parameters(), 2e-3, betas=(0.9, 0.99))
    batches, steps = stream(Sounds(folder).sound, CLIPS, 0, workers=1, collate=heard), 0
    next(batches)
    began = time.monotonic()
    while (passed := (time.monotonic() - began) / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (steps + 1) / 100, 2 - 2 * passed)
        value = loss(next(batches), torch.Generator().manual_seed(steps))
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimiser.step()
        steps += 1
    return steps


@torch.inference_mode()
def figures(codec: Folded | Spectral, folder: Path) -> dict[str, float]:
    x, _ = clips(folder, 48, HELD_OUT)
    y = codec.eval().decode(codec.encode(x))[..., :LENGTH]
    return {
        "SI-SDR, dB": round(si_sdr(x[:, 0], y[:, 0]), 2),
        "multi-resolution STFT": round(multi_resolution(x, y), 3),
        "mel": round(mel_distance(x, y), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/quality"))
    parser.add_argument("--minutes", type=float, default=10)
    told = parser.parse_args()
    build(told.folder)
    torch.manual_seed(0)
    spectral = Spectral(16)
    waves = Folded(1, 1, 80, 512, widths=(256, 320, 320, 256), blocks=(1, 2, 2, 2), finish=2)
    task = SpectralTask(spectral, lambda first: iter(()), parts=PARTS, noise=NOISE)
    found = {}
    for name, codec, loss in (("magnitudes", spectral, task.loss), ("waves", waves, partial(of_waves, waves))):
        steps = train(codec, loss, told.folder, 60 * told.minutes)
        parameters = sum(p.numel() for p in codec.parameters())
        found[name] = {"parameters": parameters, "steps": steps, **figures(codec, told.folder)}
        print(json.dumps({name: found[name]}, indent=2), flush=True)


if __name__ == "__main__":
    main()
