"""How good mini-image is: does the nearest training picture say that it drew what was asked?

    python bench/quality.py --folder DATA [--count 200] [--json FILE] [--sheet FILE]

DATA holds (or gets) the sprites of the training recipe and the judge's weights. Everything has fixed seeds. Measured:
- the judge itself, on damaged copies of training pictures: the ceiling of every figure below;
- `single`: prompts "a LABEL" of concepts drawn as training draws them; right if the nearest of all sprites is the
  prompted concept, or one whose name has the same head noun;
- `unseen`: the same for concepts that training never saw;
- `style`, `colour`, `pair`: held-out combinations; objects by the same measure (by its luma where the colour is not
  the sprite's own, half by half and enlarged for pairs), colour by the hue of what is drawn.
"""

import argparse
import colorsys
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from features import Judge, judge
from PIL import Image
from torch import Tensor

from triptych.families import cards, load
from triptych.model import Model, decode, generate
from triptych.train.data.composition import TINTS
from triptych.train.data.scenes import Scene, Scenes, build
from triptych.train.data.sprites import Sprites
from triptych.train.data.words import head_noun, with_article
from triptych.train.tasks import save_sheet
from triptych.types import Request

SIDE, DRAWN = 128, 110  # pixels


@dataclass
class Gallery:
    """Features of every sprite on white, and what each shows."""

    features: Tensor
    grey: Tensor
    codes: list[str]
    heads: list[str]

    def right(self, features: Tensor, codes: list[str], grey: bool = False) -> list[bool]:
        nearest = (features @ (self.grey if grey else self.features).T).argmax(1).tolist()
        heads = dict(zip(self.codes, self.heads, strict=True))
        return [self.codes[n] == c or self.heads[n] == heads[c] for n, c in zip(nearest, codes, strict=True)]


def on_white(sprite: np.ndarray, side: int = DRAWN, shift: tuple[int, int] = (0, 0)) -> Tensor:
    """A sprite (128, 128, 4) as a picture (3, 128, 128) in [-1, 1]."""
    scaled = Image.fromarray(sprite).convert("RGBa").resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(scaled).astype(np.float32)
    canvas = np.full((SIDE, SIDE, 3), 255, np.float32)
    top, left = (SIDE - side) // 2 + shift[0], (SIDE - side) // 2 + shift[1]
    place = canvas[top : top + side, left : left + side]
    place[:] = pixels[..., :3] + place * (1 - pixels[..., 3:] / 255)
    return torch.from_numpy(canvas / 127.5 - 1).permute(2, 0, 1)


def luma(x: Tensor) -> Tensor:
    weights = x.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return (x * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)


def gallery(network: Judge, sprites: Sprites, path: Path) -> Gallery:
    if not path.exists():
        colour, grey = [], []
        for start in range(0, len(sprites.sprites), 128):
            x = torch.stack([on_white(sprites.pixels[s.index]) for s in sprites.sprites[start : start + 128]])
            colour.append(network(x))
            grey.append(network(luma(x)))
        torch.save((torch.cat(colour), torch.cat(grey)), path)
    features, grey_features = torch.load(path, weights_only=True)
    codes = [sprite.code for sprite in sprites.sprites]
    return Gallery(features, grey_features, codes, [head_noun(sprites.concepts[code].label) for code in codes])


def draw(model: Model, prompts: list[str]) -> Tensor:
    """(N, 3, 128, 128): each prompt with its own seed, all else as the card has it."""
    pictures = []
    for number, prompt in enumerate(prompts):
        request = Request(model.card.name, prompt, seed=number)
        *_, last = generate(model, model.card.resolve(request))
        pictures.append(decode(model, last.x_t).float())
    return torch.cat(pictures).clamp(-1, 1)


def share(right: list[bool]) -> float:
    return round(sum(right) / len(right), 4) if right else float("nan")


def ceiling(network: Judge, known: Gallery, sprites: Sprites, count: int) -> dict[str, float]:
    """The judge on copies of training pictures: moved and shrunk, blurred, noisy, and in another style."""
    chosen = np.random.default_rng(0).choice(len(sprites.sprites), count, replace=False)
    codes = [sprites.sprites[n].code for n in chosen]
    moved = torch.stack([on_white(sprites.pixels[n], 100, (3, -4)) for n in chosen])
    small = torch.nn.functional.avg_pool2d(moved, 3)
    blurred = torch.nn.functional.interpolate(small, size=(SIDE, SIDE), mode="bilinear")
    noisy = moved + 0.15 * torch.randn(moved.shape, generator=torch.Generator().manual_seed(0))
    others = known.features[chosen] @ known.features.T
    others[torch.arange(count), torch.from_numpy(chosen)] = -1
    nearest = others.argmax(1).tolist()
    other = [
        known.codes[n] == c or known.heads[n] == known.heads[m] for n, c, m in zip(nearest, codes, chosen, strict=True)
    ]
    return {
        "moved": share(known.right(network(moved), codes)),
        "blurred": share(known.right(network(blurred), codes)),
        "noisy": share(known.right(network(noisy), codes)),
        "nearest other sprite": share(other),
    }


def hue_is(picture: Tensor, colour: str) -> bool:
    """Whether the median colour of what is not background is nearest to this tint, of all tints."""
    pixels = (picture.permute(1, 2, 0).reshape(-1, 3) + 1) / 2
    drawn = pixels[(1 - pixels).abs().max(1).values > 0.12]
    if len(drawn) < 50:
        return False
    strong = drawn[(drawn.max(1).values - drawn.min(1).values).argsort(descending=True)[: len(drawn) // 2]]
    return nearest_tint(strong.median(0).values.tolist()) == colour


def nearest_tint(rgb: list[float]) -> str:
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    if saturation < 0.18:
        return "gray"

    def distance(name: str) -> float:
        h, s, v = colorsys.rgb_to_hsv(*(part / 255 for part in TINTS[name]))
        turn = min(abs(h - hue), 1 - abs(h - hue))
        return 8 * turn + 0.5 * abs(s - saturation) + 0.5 * abs(v - value)

    return min((name for name in TINTS if name != "gray"), key=distance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/quality"))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--guidance", type=float, help="in place of the card's default")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sheet", type=Path, help="a picture of the first 64 single objects")
    told = parser.parse_args()
    build(told.folder)
    scenes = Scenes(told.folder)
    sprites, things = scenes.repertoire.art, scenes.things()
    network = judge(told.folder)
    known = gallery(network, sprites, told.folder / "gallery.pt")
    card = cards()["mini-image"]
    if told.guidance:
        field = replace(card.fields["guidance_scale"], default=told.guidance)
        card = replace(card, fields={**card.fields, "guidance_scale": field})
    model = load(card, "cpu", "bfloat16")
    figures: dict[str, object] = {"judge": ceiling(network, known, sprites, 300)}

    rng = np.random.default_rng(0)
    codes = [scenes.repertoire.concept(rng, "single").code for _ in range(told.count)]
    pictures = draw(model, [with_article(things[code].label) for code in codes])
    figures["single"] = share(known.right(network(pictures), codes))
    if told.sheet:
        save_sheet(pictures[:64], told.sheet, columns=8)
    unseen = [code for code, thing in things.items() if not thing.trained][: told.count // 4]
    figures["unseen"] = share(
        known.right(network(draw(model, [with_article(things[c].label) for c in unseen])), unseen)
    )
    figures |= held_out(model, network, known, told.folder, told.count // 4)
    print(json.dumps(figures, indent=2))
    if told.json:
        told.json.write_text(json.dumps(figures, indent=2) + "\n")


def held_out(model: Model, network: Judge, known: Gallery, folder: Path, count: int) -> dict[str, float]:
    """Combinations that training withheld, with the captions that the data recipe gives them."""
    figures = {}
    for kind, withheld in (("single", "style"), ("tint", "colour"), ("beside", "pair")):
        drawer = Scenes(folder, mix={kind: 1.0}, held_out=True)
        every = (drawer.scene(seed) for seed in range(100 * count))
        chosen = [s for s in every if s.withheld == withheld and s.ground.first == "white" and not s.ground.second][
            :count
        ]
        pictures = draw(model, [scene.caption for scene in chosen])
        if kind == "beside":
            drawn, possible = (
                sides(network, known, pictures, chosen),
                sides(network, known, kept(model, chosen), chosen),
            )
            figures["pair: objects in their place"] = share([right for pair in drawn for right in pair])
            figures["pair: both objects, each in its place"] = share([a and b for a, b in drawn])
            figures["pair: objects after the codec alone"] = share([right for pair in possible for right in pair])
        elif kind == "tint":
            figures["colour: object"] = share(known.right(network(luma(pictures)), [s.codes[0] for s in chosen], True))
            figures["colour: colour"] = share([hue_is(x, s.colour) for x, s in zip(pictures, chosen, strict=True)])
        else:
            figures["style: object"] = share(known.right(network(pictures), [s.codes[0] for s in chosen]))
    return figures


def kept(model: Model, scenes: list[Scene]) -> Tensor:
    """(N, 3, 128, 128): the true pictures, encoded and decoded: no denoiser can do better."""
    x = torch.stack([torch.from_numpy(scene.pixels).permute(2, 0, 1) / 127.5 - 1 for scene in scenes])
    return model.codec.decode(model.codec.encode(x.to(torch.bfloat16))).float().clamp(-1, 1)


def sides(network: Judge, known: Gallery, pictures: Tensor, scenes: list[Scene]) -> list[tuple[bool, bool]]:
    """Whether the left and the right object are right, each enlarged to the size at which the judge knows things."""
    right = []
    for n in range(2):
        half = pictures[:, :, SIDE // 4 : -SIDE // 4, n * SIDE // 2 : (n + 1) * SIDE // 2]
        large = torch.nn.functional.interpolate(half, size=(DRAWN, DRAWN), mode="bicubic").clamp(-1, 1)
        margin = (SIDE - DRAWN) // 2
        whole = torch.nn.functional.pad(large, [margin] * 4, value=1.0)
        right.append(known.right(network(whole), [scene.codes[n] for scene in scenes]))
    return list(zip(*right, strict=True))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
