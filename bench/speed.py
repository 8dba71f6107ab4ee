"""How fast: whole commands as a user runs them, and the samplers against diffusers' in the same run.

python bench/speed.py [--runs 5]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import NetworkDenoiser, noise_target
from triptych.engine.path import Discrete, scaled_linear_betas
from triptych.engine.samplers import SAMPLERS
from triptych.engine.spacing import trailing

STEPS = 50
TABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}
OURS_AND_THEIRS = {"dpmpp_2m": DPMSolverMultistepScheduler, "euler": EulerDiscreteScheduler}


def command(*words: str) -> tuple[float, int]:
    """(seconds, peak memory in MiB) of one whole process."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "triptych", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"triptych {' '.join(words)} failed")
    return time.perf_counter() - started, usage.ru_maxrss // 1024


def commands(runs: int) -> dict[str, object]:
    """Medians, from process start to written file."""
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "heart.png")
        for name, words in {"--help": ["--help"], "make": ["make", "a red heart", "--seed", "1", "-o", out]}.items():
            command(*words)
            seconds, memory = zip(*(command(*words) for _ in range(runs)), strict=True)
            figures[name] = {"seconds": round(statistics.median(seconds), 2), "MiB": max(memory)}
    return figures


def ratio(name: str, shape: tuple[int, ...], runs: int) -> float:
    """Seconds of our walk over those of diffusers' scheduler around the same free network, paired, median."""

    def network(x: torch.Tensor, *_: object) -> torch.Tensor:
        return 0.1 * x

    path = Discrete(scaled_linear_betas())
    denoiser, times = NetworkDenoiser(network, path, noise_target), trailing(path, STEPS, 1)

    def ours() -> None:
        for _ in SAMPLERS[name](denoiser, torch.ones(shape), times, Conditioning(), torch.randn_like):
            pass

    def theirs() -> None:
        scheduler = OURS_AND_THEIRS[name](**TABLE)
        scheduler.set_timesteps(STEPS)
        x = torch.ones(shape)
        for t in scheduler.timesteps:
            x = scheduler.step(network(scheduler.scale_model_input(x, t)), t, x).prev_sample

    def seconds(walk: Callable[[], None]) -> float:
        started = time.perf_counter()
        walk()
        return time.perf_counter() - started

    seconds(ours), seconds(theirs)
    return round(statistics.median(seconds(ours) / seconds(theirs) for _ in range(runs)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    figures = {
        "threads": torch.get_num_threads(),
        "commands": commands(runs),
        f"walk of {STEPS} steps, ours / diffusers": {
            f"{name} {shape}": ratio(name, shape, runs)
            for name in OURS_AND_THEIRS
            for shape in ((1, 4, 64, 64), (4, 16, 128, 128))
        },
        "peak MiB of this process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
