"""How good is mini-video: is the thing right, does it move as asked, and neither stand still nor flicker?

    python bench/motion.py --folder DATA [--json FILE] [--sheet FILE]

DATA holds (or gets) the sprites and clips of the training recipe and the judge's weights. Seeds are fixed. Measured:
- `recognised`: 60 prompts "a LABEL VERB" of animated pictures; right if the nearest of all of them, by the judge's
  features averaged over frames, is the prompted one, or one whose name has the same head noun;
- `direction`: 40 prompts of things that move in ten ways, held out of training; right if the track of the centre of
  what is drawn, or its size, does what was asked;
- `change`: the mean absolute change from frame to frame, of 255, and `flicker`: the share of it that is undone by the
  next frame; both of what is made and of the training clips.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from features import Judge, judge
from numpy.typing import NDArray
from torch import Tensor

from triptych.families import cards, load
from triptych.model import Model, decode, generate
from triptych.train.data.clips import FRAMES
from triptych.train.data.films import Films, build
from triptych.train.data.words import head_noun, with_article
from triptych.train.tasks import save_sheet
from triptych.types import Request

LOOKS = 6  # frames of a clip that the judge sees
WAYS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1), "roll right": (1, 0), "roll left": (-1, 0)}
Frames = NDArray[np.uint8]  # (T, H, W, 3)


def film(model: Model, prompt: str, seed: int) -> Frames:
    """(T, H, W, 3): all but prompt and seed as the card has it."""
    *_, last = generate(model, model.card.resolve(Request(model.card.name, prompt, seed=seed)))
    x = decode(model, last.x_t)[0].clamp(-1, 1)
    return ((x + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()


def looks(network: Judge, frames: Frames) -> Tensor:
    """(D,) the judge's features of some frames, averaged."""
    chosen = frames[np.linspace(0, len(frames) - 1, LOOKS).round().astype(int)]
    mean = network(torch.from_numpy(chosen).permute(0, 3, 1, 2).float() / 127.5 - 1).mean(0)
    return mean / mean.norm()


def on_white(clip: Frames) -> Frames:
    """Straight alpha (T, H, W, 4) laid over white."""
    alpha = clip[..., 3:].astype(np.float32) / 255
    return (clip[..., :3] * alpha + 255 * (1 - alpha) + 0.5).astype(np.uint8)


def change(frames: Frames) -> tuple[float, float]:
    """(mean absolute change, share of it that the next frame undoes)."""
    steps = np.diff(frames.astype(np.float32), axis=0)
    undone = np.minimum(np.abs(steps[1:]), np.abs(steps[:-1])) * (np.sign(steps[1:]) == -np.sign(steps[:-1]))
    return float(np.abs(steps).mean()), float(undone.mean() / max(np.abs(steps).mean(), 1e-6))


def track(frames: Frames) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the centre of what is drawn is, (T, 2) of (x, y), and the root of its area (T,), as shares of the frame.

    NaN where next to nothing is drawn.
    """
    drawn = np.abs(frames.astype(np.float32) - 255).max(-1) > 48
    side = frames.shape[1]
    centres, sizes = np.full((len(frames), 2), np.nan), np.sqrt(drawn.mean((1, 2)))
    for n, one in enumerate(drawn):
        if one.sum() > 60:
            down, across = np.nonzero(one)
            centres[n] = across.mean() / side, down.mean() / side
    return centres, sizes


def moves(frames: Frames, motion: str) -> bool:
    """Whether the track is that of this motion."""
    centres, sizes = track(frames)
    match motion:
        case "zoom in" | "zoom out":
            early, late = sizes[2 : len(sizes) // 3].mean(), sizes[-len(sizes) // 3 : -2].mean()
            return bool(late > 1.25 * early if motion == "zoom in" else early > 1.25 * late)
        case "bounce" | "orbit":
            spread = np.nanstd(centres, axis=0)
            return bool(spread[1] > 0.06 and (spread[0] < 0.5 * spread[1] if motion == "bounce" else spread[0] > 0.06))
        case _:
            steps = np.diff(centres, axis=0)
            steps = steps[np.abs(steps).max(1) < 0.25]  # not the jump from one side to the other; NaN goes as well
            mean = steps.mean(0) if len(steps) else np.zeros(2)
            along, aside = float(mean @ WAYS[motion]), float(abs(mean[::-1] @ np.abs(WAYS[motion])))
            return along > 0.006 and aside < along


def held_out(folder: Path) -> list[tuple[str, str]]:
    """(motion, caption): four of each, on white, of concepts that training never moved so."""
    found = []
    for motion in (*WAYS, "zoom in", "zoom out", "bounce", "orbit"):
        drawer = Films(folder, motion=motion, held_out=True)
        films = (drawer.film(seed) for seed in range(1000))
        white = (one for one in films if (one.pixels[:, 0, 0] == 255).all() and "background" not in one.caption)
        found += [(motion, one.caption) for one, _ in zip(white, range(4), strict=False)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/quality"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="frames across, prompts down")
    told = parser.parse_args()
    build(told.folder)
    drawer, network = Films(told.folder), judge(told.folder)
    labels = {code: drawer.repertoire.art.concepts[code].label for code in drawer.clips.codes}
    own = [on_white(np.asarray(clip)) for clip in drawer.clips.pixels]
    known = torch.stack([looks(network, clip) for clip in own])
    model = load(cards()["mini-video"], "cpu", "bfloat16")
    began, made, rows = time.monotonic(), [], []

    rng, right = np.random.default_rng(0), []
    doing = [code for code in drawer.native if labels[code] in drawer.verbs]
    for seed, code in enumerate(rng.choice(doing, 60, replace=False).tolist()):
        prompt = f"{with_article(labels[code])} {drawer.verbs[labels[code]][0]}"
        frames = film(model, prompt, seed)
        nearest = labels[drawer.clips.codes[int((known @ looks(network, frames)).argmax())]]
        right.append(nearest == labels[code] or head_noun(nearest) == head_noun(labels[code]))
        made.append(frames)
        rows.append((prompt, frames))
    directions = []
    for seed, (motion, caption) in enumerate(held_out(told.folder)):
        frames = film(model, caption, seed)
        directions.append(moves(frames, motion))
        rows.append((caption, frames))
        print(f"{motion:>10} {'right' if directions[-1] else 'wrong'}  {caption}")
    seconds = (time.monotonic() - began) / len(rows)
    truth = np.array([change(clip) for clip in own])
    ours = np.array([change(frames) for frames in made])
    figures = {
        "recognised": round(float(np.mean(right)), 4),
        "direction": round(float(np.mean(directions)), 4),
        "change, training clips (5 %, median, 95 %)": np.percentile(truth[:, 0], [5, 50, 95]).round(2).tolist(),
        "change, made": np.percentile(ours[:, 0], [5, 50, 95]).round(2).tolist(),
        "flicker, training clips": np.percentile(truth[:, 1], [5, 50, 95]).round(3).tolist(),
        "flicker, made": np.percentile(ours[:, 1], [5, 50, 95]).round(3).tolist(),
        "seconds a clip": round(seconds, 2),
        "frames": FRAMES,
    }
    print(json.dumps(figures, indent=2))
    if told.json:
        told.json.write_text(json.dumps(figures, indent=2) + "\n")
    if told.sheet:
        save(rows[:12] + rows[60:100:3], told.sheet)


def save(rows: list[tuple[str, Frames]], path: Path) -> None:
    """Nine frames across, prompts down."""
    chosen = [frames[np.linspace(0, len(frames) - 1, 9).round().astype(int)] for _, frames in rows]
    x = torch.from_numpy(np.concatenate(chosen)).permute(0, 3, 1, 2).float() / 127.5 - 1
    save_sheet(x, path, columns=9)
    print("\n".join(prompt for prompt, _ in rows))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
