"""Draws the pictures of docs with the models that ship: python docs/pictures.py [NAME ...]."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import Tensor

from triptych.engine.noise import SeededNoise
from triptych.engine.path import Cosine, Straight, VarianceExploding
from triptych.engine.samplers import Step
from triptych.families import cards, load
from triptych.media.audio import sounds as audio_sounds
from triptych.media.image import pictures
from triptych.media.plot import plot
from triptych.media.sheet import grid, sheet
from triptych.media.trace import projected
from triptych.media.video import Clip, encode
from triptych.model import Model, decode, generate
from triptych.types import Request

FOLDER = Path(__file__).parent / "pictures"
Row = tuple[str, list[tuple[str, Image.Image]]]


def steps(model: Model, prompt: str, **said: object) -> list[Step]:
    request = replace(Request(model.card.name, prompt, seed=7), **said)  # type: ignore[arg-type]
    return list(generate(model, model.card.resolve(request)))


def drawn(model: Model, prompt: str, **said: object) -> Tensor:
    """(1, 3, 128, 128) in [-1, 1]."""
    return decode(model, steps(model, prompt, **said)[-1].x_t).clamp(-1, 1)


def shown(x: Tensor) -> Image.Image:
    """Samples (1, 3, H, W), or latents by their principal axes, at 128 x 128."""
    return pictures(x.clamp(-1, 1))[0].resize((128, 128), Image.Resampling.NEAREST)


def forward_process(model: Model) -> list[Row]:
    x_0, eps = drawn(model, "a cat"), SeededNoise([1]).draw((3, 128, 128))
    rows = []
    for name, path in (("straight", Straight()), ("cosine", Cosine()), ("exploding", VarianceExploding(20.0))):
        cells = []
        for t in (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0):
            time = torch.tensor(t)
            x_t = path.perturb(x_0, eps, time) if t else x_0
            cells.append((f"{t:g}: sigma {path.sigma(time):.2f}", shown(x_t / (1 + path.sigma(time) / 3))))
        rows.append((f"{name} path: t and sigma", cells))
    return rows


def reverse_process(model: Model) -> list[Row]:
    walk = steps(model, "a cat", steps=12)
    chosen = [walk[n] for n in (0, 2, 4, 6, 8, 10, 12)]
    rows = [
        ("x_t, decoded", [(f"t = {s.t:.2f}", shown(decode(model, s.x_t))) for s in chosen]),
        ("the predicted x_0, decoded", [(f"t = {s.t:.2f}", shown(decode(model, s.prediction.x_0))) for s in chosen]),
    ]
    for sampler in ("euler", "dpmpp_2m"):
        cells = [
            (f"{n} step{'s' * (n > 1)}", shown(drawn(model, "a cat", steps=n, sampler=sampler)))
            for n in (1, 2, 4, 6, 8, 20, 60)
        ]
        rows.append((f"the result of {sampler}", cells))
    return rows


def conditioning(model: Model) -> list[Row]:
    prompts = ("a cat", "a kitten", "a green cat", "a cat, flat style", "a cat on a blue background", "a rocket", "")
    guesses = []
    for prompt in prompts:
        request = model.card.resolve(Request(model.card.name, prompt or "a cat", seed=7))
        sketch = model.encoder(request, prompt).concat
        assert sketch is not None
        guesses.append((prompt or "(nothing)", shown(decode(model, sketch))))
    results = [(prompt, shown(drawn(model, prompt))) for prompt in prompts[:-1]]
    return [("what the text alone suggests: E[x_0 | text]", guesses), ("what is drawn from it", results)]


def latent_diffusion(model: Model) -> list[Row]:
    prompts = ("a cat", "a slice of pizza", "a sunflower", "a rocket", "a violin", "a penguin", "a crown")
    x = [drawn(model, prompt) for prompt in prompts]
    z = [model.codec.encode(picture) for picture in x]
    again = [model.codec.decode(latents) for latents in z]
    noisy = [model.codec.decode(latents + 0.3 * SeededNoise([1]).draw((8, 16, 16))) for latents in z]
    titles = (
        ("samples, 128 x 128 x 3", x),
        ("latents, 16 x 16 x 8, by their three principal axes", [projected(latents) for latents in z]),
        ("decoded again", again),
        ("decoded with noise of 0.3 added to the latents", noisy),
    )
    return [(title, [("", shown(picture)) for picture in row]) for title, row in titles]


def guidance(model: Model) -> list[Row]:
    scales = (1, 1.7, 3, 4.5, 7, 12, 20)
    rows = []
    for prompt in ("a slice of pizza", "a puppy", "a rocket on a yellow background"):
        cells = [(f"scale {scale:g}", shown(drawn(model, prompt, guidance_scale=float(scale)))) for scale in scales]
        rows.append((prompt, cells))
    ways: dict[str, dict[str, object]] = {
        "cfg": {},
        "rescaled by 0.7": {"guidance_rescale": 0.7},
        "first half only": {"guidance_stop": 0.5},
        "apg": {"guidance": "apg"},
        "cfg++": {"guidance": "cfg++"},
    }
    cells = []
    for name, options in ways.items():
        cells.append((name, shown(drawn(model, "a puppy", guidance_scale=12.0, options=options))))
    rows.append(("a puppy at scale 12", cells))
    return rows


def flow_matching(model: Model) -> list[Row]:
    """From the same noise: where the velocity at t points, x_0 = x_t - t v, at seven times of a fine walk."""
    rows = []
    for prompt in ("a crown", "a rocket"):
        walk = steps(model, prompt, steps=60, sampler="euler")
        chosen = [walk[n] for n in (0, 10, 20, 30, 40, 50, 59)]
        rows.append((f"{prompt}: x_t", [(f"t = {s.t:.2f}", shown(projected(s.x_t))) for s in chosen]))
        ends = [(f"t = {s.t:.2f}", shown(decode(model, s.prediction.x_0))) for s in chosen]
        rows.append((f"{prompt}: x_t - t v, decoded", ends))
    return rows


CLIPS = (
    "a snake flicking its tongue", "a heart beating", "a soccer ball rolling", "a rocket flying up",
    "an apple bouncing", "a cat sliding to the left", "a bird moving in a circle", "zooming in on a cake",
    "a blue butterfly spinning", "a ghost fading in", "a robot shaking", "a fish jumping",
)  # fmt: skip
SOUNDS = (
    "slow piano in c major", "violin playing a c major arpeggio", "fast techno drum loop, 140 bpm",
    "sad church organ chords in a minor", "trumpet melody in g major", "bass guitar bass line in e minor",
    "a dog barking", "thunder", "a siren",
)  # fmt: skip


def clips() -> None:
    """docs/pictures/mini-video.webp: clips side by side, moving."""
    model = load(cards()["mini-video"], "cpu", "float32")
    made = [decode(model, steps(model, prompt)[-1].x_t) for prompt in CLIPS]
    frames = [
        sheet([(prompt, pictures(x[:, :, n])[0]) for prompt, x in zip(CLIPS, made, strict=True)], columns=4)
        for n in range(made[0].shape[2])
    ]
    clip = Clip(numpy.stack([numpy.asarray(frame) for frame in frames]), model.card.fields["fps"].default)
    (FOLDER / "mini-video.webp").write_bytes(encode(clip, "image/webp", {}, quality=60))


def sounds() -> None:
    """docs/pictures/mini-audio.webp: waves and spectrograms."""
    model = load(cards()["mini-audio"], "cpu", "float32")
    cells = []
    for prompt in SOUNDS:
        x = decode(model, steps(model, prompt)[-1].x_t)
        cells.append((prompt, plot(audio_sounds(x, model.card.axes[0].rate, x.shape[-1])[0], (360, 240))))
    sheet(cells, columns=3).save(FOLDER / "mini-audio.webp", quality=80)


OTHERS: dict[str, Callable[[], None]] = {"mini-video": clips, "mini-audio": sounds}
PAGES: dict[str, Callable[[Model], list[Row]]] = {
    "forward-process": forward_process,
    "reverse-process": reverse_process,
    "conditioning": conditioning,
    "latent-diffusion": latent_diffusion,
    "guidance": guidance,
    "flow-matching": flow_matching,
}


@torch.inference_mode()
def main(names: list[str]) -> None:
    model = load(cards()["mini-image"], "cpu", "float32")
    for name in names or [*PAGES, *OTHERS]:
        if name in OTHERS:
            OTHERS[name]()
        else:
            grid(PAGES[name](model)).save(FOLDER / f"{name}.webp", quality=80)


if __name__ == "__main__":
    main(sys.argv[1:])
