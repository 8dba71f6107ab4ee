"""How good is mini-audio: what its codec loses, and whether what it plays is what was asked for?

    python bench/sound.py --folder DATA [--json FILE] [--plots FOLDER]

DATA holds (or gets) the soundfonts of the training recipe and the judge's weights. Seeds are fixed. Measured:
- the codec on held-out clips, beside a round trip through Opus at 64 kbit/s and what its scale alone loses: SI-SDR in
  decibels, the multi-resolution STFT distance (arXiv:1910.11480: convergence plus log magnitudes, three windows), and
  the mean distance of logarithms of 80 mel bands; what lies 70 dB below full scale counts as silence;
- `player`: 100 prompts of instruments, drum kits and effects; right if a judge, trained on renders of the same fonts,
  hears the player that was asked for. Its own accuracy on renders it never heard is the ceiling;
- `key`: 60 prompts with a key; right if more of the sound lies in the notes of that key than of the eleven others;
- `tempo`: 40 prompts with a number of beats a minute; the correlation of asked and heard onset rates, and the share
  within 8 % of it, its half or its double. Key and tempo are also measured on true renders of the same prompts.
"""

import argparse
import io
import json
import math
import time
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from triptych.engine.codecs.spectral import Spectral
from triptych.families import cards, load, mini
from triptych.media.audio import Sound, decode
from triptych.media.plot import plot
from triptych.model import Model, generate
from triptych.model import decode as decoded
from triptych.train.data.scores import MODES, TONICS
from triptych.train.data.sounds import RATE, Sounds, build, instruments
from triptych.types import Request

LENGTH = 131_072  # samples of a clip that is judged: 4.1 s
HELD_OUT = 10_000_000  # the first seed that training never had
SILENT = 3e-4  # the magnitude below which nothing is heard: 70 dB under a sine of amplitude 1
PLAYERS = [name for table in instruments().values() for name in table]


def clips(folder: Path, count: int, first: int) -> tuple[Tensor, list[str]]:
    """(count, 1, LENGTH) and who plays."""
    drawn = Sounds(folder)
    found = [drawn.sound(first + n) for n in range(count)]
    return torch.from_numpy(np.stack([one.samples[:LENGTH] for one in found]))[:, None], [one.player for one in found]


def opus(x: Tensor) -> Tensor:
    """(B, 1, N) through Opus at 64 kbit/s and back."""
    found = []
    for one in x:
        out = io.BytesIO()
        with av.open(out, "w", format="ogg") as container:
            stream = container.add_stream("libopus", rate=48_000, layout="mono", bit_rate=64_000)
            to = av.AudioResampler("flt", "mono", 48_000, frame_size=960)
            frame = av.AudioFrame.from_ndarray(one.numpy().astype(np.float32), format="flt", layout="mono")
            frame.sample_rate = RATE
            for part in [*to.resample(frame), *to.resample(None)]:
                container.mux(stream.encode(part))
            container.mux(stream.encode())
        back = decode(out.getvalue(), "opus", RATE, 1).samples[:, 0]
        found.append(aligned(back, one[0].numpy()))
    return torch.from_numpy(np.stack(found))[:, None]


def aligned(x: NDArray[np.float32], like: NDArray[np.float32]) -> NDArray[np.float32]:
    """x shifted by up to 40 ms to where it fits best, as long as the other."""
    reach = RATE // 25
    padded = np.pad(x, (reach, reach + len(like)))
    shifts = range(0, 2 * reach, 1)
    spectrum = np.fft.irfft(np.fft.rfft(padded, 1 << 19) * np.conj(np.fft.rfft(like, 1 << 19)))
    best = max(shifts, key=lambda n: spectrum[n])
    return padded[best : best + len(like)]


def si_sdr(x: Tensor, y: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in decibels (arXiv:1811.02508), median."""
    scale = (x * y).sum(-1, keepdim=True) / x.square().sum(-1, keepdim=True).clamp(min=1e-9)
    target = scale * x
    ratio = target.square().sum(-1) / (y - target).square().sum(-1).clamp(min=1e-9)
    return float((10 * ratio.log10()).median())


def stft(x: Tensor, window: int) -> Tensor:
    """(B, bins, frames): a sine of amplitude 1 has about 1 in its bin."""
    shape = torch.hann_window(window)
    return torch.stft(x.flatten(0, 1), window, window // 4, window=shape, return_complex=True).abs() * (4 / window)


def multi_resolution(x: Tensor, y: Tensor) -> float:
    total = 0.0
    for window in (512, 1024, 2048):
        a, b = stft(x, window), stft(y, window)
        total += float(((a - b).flatten(1).norm(dim=1) / a.flatten(1).norm(dim=1)).mean())
        total += float((a.clamp(min=SILENT).log() - b.clamp(min=SILENT).log()).abs().mean())
    return total / 3


def mel_bands(bands: int, window: int) -> Tensor:
    """(bands, window / 2 + 1) triangles, even on the mel scale."""
    edges = 700 * (10 ** (torch.linspace(0, 2595 * math.log10(1 + RATE / 2 / 700), bands + 2) / 2595) - 1)
    hertz = torch.arange(window // 2 + 1) * RATE / window
    rise = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rise, fall).clamp(min=0)


def mel_distance(x: Tensor, y: Tensor) -> float:
    bands = mel_bands(80, 1024)
    a, b = ((bands @ stft(one, 1024)).clamp(min=SILENT).log() for one in (x, y))
    return float((a - b).abs().mean())


def codec_figures(codec: Spectral, folder: Path) -> dict[str, dict[str, float]]:
    """By what was done to the clips: the three distances."""
    x, _ = clips(folder, 48, HELD_OUT)
    ways = {
        "mini-audio's codec": codec.decode(codec.encode(x))[..., :LENGTH],
        "its scale and phases alone": codec.sounding(codec.spectrum(x))[..., :LENGTH],
        "Opus, 64 kbit/s": opus(x),
    }
    return {
        name: {
            "SI-SDR, dB": round(si_sdr(x[:, 0], y[:, 0]), 2),
            "multi-resolution STFT": round(multi_resolution(x, y), 3),
            "mel": round(mel_distance(x, y), 3),
        }
        for name, y in ways.items()
    }


class Judge(nn.Module):
    """Spectra (B, 1, bands, frames) to scores of PLAYERS."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 32, 64, 96, 128)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2))
                for a, b in pairwise(widths)
            )
        )
        self.leave = nn.Linear(2 * widths[-1], len(PLAYERS))

    def forward(self, x: Tensor) -> Tensor:
        h = self.layers(F.avg_pool2d(x, (2, 4))).flatten(2)
        return self.leave(torch.cat([h.mean(2), h.amax(2)], dim=1))


def judge(folder: Path, codec: Spectral) -> tuple[Judge, float, float]:
    """The judge, trained where the folder does not have it, and its accuracy on renders it never heard: as they are,
    and a third of them after the codec."""
    network, path = Judge(), folder / "sound-judge.pt"
    test, players = clips(folder, 600, HELD_OUT + 100_000)
    names = torch.tensor([PLAYERS.index(name) for name in players])
    if not path.exists():
        torch.manual_seed(0)
        teach(network, folder, codec)
        torch.save(network.state_dict(), path)
    network.load_state_dict(torch.load(path))
    network.eval()

    def accuracy(parts: list[Tensor]) -> float:
        heard = torch.cat([network(codec.spectrum(part)).argmax(1) for part in parts])
        return float((heard == names[: len(heard)]).float().mean())

    with torch.inference_mode():
        as_they_are = accuracy(list(test.split(50)))
        return network, as_they_are, accuracy([codec.decode(codec.encode(part)) for part in test[:200].split(50)])


def teach(network: Judge, folder: Path, codec: Spectral, steps: int = 2400, batch: int = 32) -> None:
    """Renders 7,200 clips of its own and goes over them; parts of clips, louder and softer."""
    spectra, names = [], []
    for first in range(0, 7200, 200):
        x, players = clips(folder, 200, HELD_OUT + 200_000 + first)
        with torch.inference_mode():
            spectra.append(torch.cat([codec.spectrum(part) for part in x.split(50)]).half())
        names += [PLAYERS.index(name) for name in players]
    kept, said = torch.cat(spectra), torch.tensor(names)
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(kept), (batch,))
        x = kept[chosen].float()
        x = x + 0.15 * torch.randn(batch, 1, 1, 1) + 0.05 * torch.randn(x.shape)
        loss = F.cross_entropy(network(x), said[chosen], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 400 == 0:
            print(f"judge: {step} of {steps}, {loss.item():.2f}", flush=True)


def played(model: Model, prompt: str, seed: int) -> Tensor:
    """(LENGTH,) all but prompt and seed as the card has it."""
    *_, last = generate(model, model.card.resolve(Request(model.card.name, prompt, seed=seed)))
    return decoded(model, last.x_t)[0, 0, :LENGTH]


def prompts_of_players() -> list[tuple[str, str]]:
    """(player, prompt): 100 of all players, none twice."""
    rng, table = np.random.default_rng(0), instruments()
    found = []
    for name in rng.permutation(PLAYERS).tolist()[:100]:
        if name in table["kits"]:
            found.append((name, f"rock {name} loop"))
        elif name in table["effects"]:
            found.append((name, name))
        else:
            kind = str(rng.choice(["melody", "arpeggio", "chords", "scale"]))
            key = f"{rng.choice(TONICS)} {rng.choice(tuple(MODES))}"
            found.append((name, f"{name} {kind} in {key}"))
    return found


KEYED = ("piano", "organ", "harpsichord", "violin", "flute", "trumpet", "vibraphone", "acoustic guitar", "strings",
         "clarinet", "synth brass", "harp")  # fmt: skip


def prompts_of_keys() -> list[tuple[str, str, str]]:
    """(tonic, mode, prompt): 60; no melodies, which may leave out the notes that tell a key."""
    rng = np.random.default_rng(1)
    found = []
    for n in range(60):
        tonic, mode = TONICS[n % 12], tuple(MODES)[n // 12 % 2]
        kind = str(rng.choice(["arpeggio", "chords", "scale"]))
        found.append((tonic, mode, f"{KEYED[int(rng.integers(len(KEYED)))]} {kind} in {tonic} {mode}"))
    return found


def in_key(x: NDArray[np.float32], tonic: str, mode: str) -> bool:
    """Whether more of the sound lies in the notes of the key than in those of its eleven transpositions."""
    window = 8192
    starts = range(0, len(x) - window, window // 2)
    power = sum(np.abs(np.fft.rfft(x[s : s + window] * np.hanning(window))) for s in starts)
    hertz = np.arange(len(power)) * RATE / window
    within = (hertz > 100) & (hertz < 2100)
    peaks = within & (power >= np.roll(power, 1)) & (power > np.roll(power, -1))
    notes = 69 + 12 * np.log2(hertz[peaks] / 440)
    chroma = np.zeros(12)
    for note, strength in zip(notes, power[peaks], strict=True):
        if abs(note - round(note)) < 0.35:
            chroma[round(note) % 12] += strength
    scores = [chroma[[(shift + step) % 12 for step in MODES[mode]]].sum() for shift in range(12)]
    # Tonic and fifth tell a key from its neighbours, which share six of its seven notes.
    scores = [s + 0.3 * (chroma[n] + chroma[(n + 7) % 12]) for n, s in enumerate(scores)]
    return int(np.argmax(scores)) == TONICS.index(tonic)


def onset_rate(x: NDArray[np.float32]) -> float:
    """Onsets a minute: the strongest period of the growth of the spectrum."""
    hop = 256
    frames = np.lib.stride_tricks.sliding_window_view(x, 1024)[::hop] * np.hanning(1024)
    logs = np.log(np.abs(np.fft.rfft(frames)) + 1e-3)
    flux = np.maximum(np.diff(logs, axis=0), 0).sum(1)
    flux = flux - np.convolve(flux, np.ones(32) / 32, mode="same")
    size = len(flux)
    echo = np.fft.irfft(np.abs(np.fft.rfft(flux, 4 * size)) ** 2)[:size] / (size - np.arange(size) + 64)
    lags = np.arange(size)
    rates = 60 * RATE / hop / np.maximum(lags, 1)
    taste = np.exp(-0.5 * (np.log2(rates / 150) / 0.9) ** 2)  # of two that fit, the likelier
    allowed = (rates > 40) & (rates < 400)
    return float(rates[np.argmax(np.where(allowed, echo * taste, -np.inf))])


def prompts_of_tempi() -> list[tuple[int, str]]:
    """(beats a minute, prompt): 40."""
    rng = np.random.default_rng(2)
    found = []
    for n in range(40):
        if n % 2:
            tempo = int(5 * rng.integers(16, 35))
            found.append((tempo, f"{rng.choice(['rock', 'techno', 'house', 'pop'])} drum loop, {tempo} bpm"))
        else:
            tempo = int(5 * rng.integers(18, 36))
            found.append((tempo, f"{rng.choice(['piano', 'marimba', 'harpsichord', 'xylophone'])} scale, {tempo} bpm"))
    return found


def near(asked: float, heard: float) -> bool:
    return any(abs(heard / (asked * factor) - 1) < 0.08 for factor in (0.5, 1, 2))


def renders(folder: Path, kinds: tuple[str, ...], count: int) -> list:
    """True clips of these kinds."""
    drawn = [Sounds(folder, kind) for kind in kinds]
    return [drawn[n % len(drawn)].sound(HELD_OUT + 500_000 + n) for n in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/quality"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plots", type=Path, help="where spectrograms of some are drawn")
    parser.add_argument("--codec", action="store_true", help="nothing but the codec")
    told = parser.parse_args()
    build(told.folder)
    card = cards()["mini-audio"]
    model = load(card, "cpu", "float32")
    codec = mini.assemble(card).codec if not isinstance(model.codec, Spectral) else model.codec
    figures: dict[str, object] = {"codec": codec_figures(codec, told.folder)}
    print(json.dumps(figures, indent=2), flush=True)
    if not told.codec:
        figures |= generation_figures(model, codec, told.folder, told.plots)
    print(json.dumps(figures, indent=2))
    if told.json:
        told.json.write_text(json.dumps(figures, indent=2) + "\n")


def generation_figures(model: Model, codec: Spectral, folder: Path, plots: Path | None) -> dict[str, object]:
    network, ceiling, after = judge(folder, codec)
    print(f"the judge knows {ceiling:.1%} of renders it never heard, {after:.1%} after the codec", flush=True)
    began, right = time.monotonic(), []
    for seed, (player, prompt) in enumerate(prompts_of_players()):
        x = played(model, prompt, seed)
        heard = PLAYERS[int(network(codec.spectrum(x[None, None])).argmax())]
        right.append(heard == player)
        if not right[-1]:
            print(f"asked {prompt!r}, heard {heard!r}")
        if plots and seed < 24:
            plots.mkdir(parents=True, exist_ok=True)
            plot(Sound(x[:, None].numpy(), RATE), (480, 280)).save(plots / f"{seed:02}-{prompt.replace(' ', '-')}.png")
    seconds = (time.monotonic() - began) / len(right)
    keys = [
        in_key(played(model, prompt, seed).numpy(), tonic, mode)
        for seed, (tonic, mode, prompt) in enumerate(prompts_of_keys())
    ]
    tempi = prompts_of_tempi()
    heard = [onset_rate(played(model, prompt, seed).numpy()) for seed, (_, prompt) in enumerate(tempi)]
    scored = renders(folder, ("arpeggio", "chords", "scale"), 60)
    true_keys = [in_key(one.samples[:LENGTH], one.tonic, one.mode) for one in scored]
    waves = torch.from_numpy(np.stack([one.samples[:LENGTH] for one in scored]))[:, None]
    back = torch.cat([codec.decode(codec.encode(part)) for part in waves.split(10)])[:, 0, :LENGTH].numpy()
    coded_keys = [in_key(x, one.tonic, one.mode) for x, one in zip(back, scored, strict=True)]
    true_tempi = [(one.tempo, onset_rate(one.samples[:LENGTH])) for one in renders(folder, ("drums", "scale"), 40)]
    asked = [tempo for tempo, _ in tempi]
    return {
        "player": round(float(np.mean(right)), 4),
        "player, judge on renders": round(ceiling, 4),
        "player, judge on renders after the codec": round(after, 4),
        "key": round(float(np.mean(keys)), 4),
        "key, renders": round(float(np.mean(true_keys)), 4),
        "key, renders after the codec": round(float(np.mean(coded_keys)), 4),
        "tempo within 8 %": round(float(np.mean([near(a, h) for a, h in zip(asked, heard, strict=True)])), 4),
        "tempo within 8 %, renders": round(float(np.mean([near(*pair) for pair in true_tempi])), 4),
        "tempo, correlation": round(float(np.corrcoef(folded(asked, heard))[0, 1]), 4),
        "tempo, correlation, renders": round(float(np.corrcoef(folded(*zip(*true_tempi, strict=True)))[0, 1]), 4),
        "seconds a clip": round(seconds, 2),
    }


def folded(asked: list, heard: list) -> NDArray[np.float64]:
    """Heard rates with whole octaves taken off, beside the asked ones."""
    pairs = [(a, h * 2.0 ** round(math.log2(a / h))) for a, h in zip(asked, heard, strict=True)]
    return np.array(pairs).T


if __name__ == "__main__":
    with torch.no_grad():
        main()
