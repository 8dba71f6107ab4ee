"""FLUX.1 Redux: a picture as words. SigLIP's tower (arXiv:2303.15343) looks at it, two layers say what it saw as tokens
that follow T5's.

Modules bear the names of transformers' SiglipVisionModel and of the published file of the two layers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any, Final, final

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from triptych.engine.nets.attention import attention
from triptych.errors import InvalidField, WeightsError
from triptych.families import place
from triptych.families.flow import Parts
from triptych.families.flow_changes import Makers, Means
from triptych.types import Request
from triptych.weights.files import Tensors, open_bundle
from triptych.weights.layouts import flux
from triptych.weights.loading import Component

__all__ = ["brought", "seen"]

HEAD: Final = 72  # channels, of the published tower
EPS: Final = 1e-6
IDLE: Final = re.compile(r"^head\.|position_ids$")  # of the tower, what is not looked with
MANY: Final = 3  # how many times as wide as what is told what lies between the two layers is
PREFIX: Final = "vision_model."
PATCHES: Final = "embeddings.patch_embedding.weight"


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """All numbers of a tower. side: patches along each side of a picture; samples: along each side, of which those that
    fill no patch are not looked at."""

    width: int = 1152
    layers: int = 27
    heads: int = 16
    hidden: int = 4304
    side: int = 27
    patch: int = 14
    samples: int = 384


SO400M: Final = Shape()  # the published one


class Eye(nn.Module):
    """SigLIP's tower for pictures, up to what it knows of each patch."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.samples = shape.samples
        self.embeddings, self.encoder = Patches(shape), Layers(shape)
        self.post_layernorm = nn.LayerNorm(shape.width, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, samples, samples) in [-1, 1] -> (B, side^2, width)."""
        out: Tensor = self.post_layernorm(self.encoder(self.embeddings(x)))
        return out


class Patches(nn.Module):
    """Each patch, and where it is."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, shape.width, shape.patch, stride=shape.patch)
        self.position_embedding = nn.Embedding(shape.side**2, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, 3, samples, samples) -> (B, side^2, width)."""
        places = self.position_embedding.weight
        h: Tensor = rearrange(self.patch_embedding(x.to(places.dtype)), "b c h w -> b (h w) c")
        return h + places


class Layers(nn.Module):
    """One after the other."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> the same shape."""
        for layer in self.layers:
            x = layer(x)
        return x


class Layer(nn.Module):
    """Patches attend to each other, then each computes alone."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layer_norm1, self.layer_norm2 = (nn.LayerNorm(shape.width, eps=EPS) for _ in range(2))
        self.self_attn, self.mlp = Attention(shape), Computed(shape)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> the same shape."""
        x = x + self.self_attn(self.layer_norm1(x))
        h: Tensor = self.mlp(self.layer_norm2(x))
        return x + h


class Attention(nn.Module):
    """Of all patches to all."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(shape.width, shape.width) for _ in range(4))
        self.heads = shape.heads

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> the same shape."""
        out: Tensor = self.out_proj(attention(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads))
        return out


class Computed(nn.Module):
    """What each patch computes alone."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(shape.width, shape.hidden), nn.Linear(shape.hidden, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> the same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out


class Words(nn.Module):
    """What was seen of each patch as one token."""

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.redux_up, self.redux_down = nn.Linear(width, MANY * context), nn.Linear(MANY * context, context)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, context)."""
        out: Tensor = self.redux_down(F.silu(self.redux_up(x)))
        return out


def brought(request: Request, parts: Parts) -> Makers:
    """The two networks, where a request has a picture for them. Raises InvalidField, WeightsError."""
    if "redux" not in request.inputs:
        return {}
    eye, words = _names(request)
    return {eye: lambda: _eye(request, parts), words: lambda: _words(request, parts)}


def seen(request: Request, means: Means) -> Tensor | None:
    """(1, N, context): what the picture of a request says, if it has one."""
    if "redux" not in means.pictures:
        return None
    names = _names(request)
    means.rooms.use(names)
    eye, words = (means.more[name].module for name in names)
    found: Tensor = words(eye(fitted(means.pictures["redux"], eye.samples)))
    strength: float = request.options["redux_strength"]
    return found * strength


def fitted(picture: Tensor, length: int) -> Tensor:
    """Pictures (B, 3, H, W) in [0, 1] as (B, 3, length, length) in [-1, 1], out of shape, as the tower was trained:
    by a bicubic filter that is as wide as a sample of the smaller picture, on 8 bits."""
    small = F.interpolate(picture.float(), (length, length), mode="bicubic", antialias=True)
    return (small * 255).round().clamp(0, 255) / 127.5 - 1


def _names(request: Request) -> tuple[str, str]:
    """What the tower and the two layers are called in the rooms."""
    net, eye = request.options.get("redux_net"), request.options.get("redux_eye")
    if not net:
        raise InvalidField("redux_net", None, "the folder or hub name of FLUX.1 Redux beside a picture for it")
    return f"redux_eye {eye or net}", f"redux_net {net}"


def _words(request: Request, parts: Parts) -> Component[Words]:
    tensors, _ = _found(request.options["redux_net"], "redux_net", "image_embedder", "redux_up.weight")
    wide, width = tensors.shape("redux_up.weight")
    return parts.filled(lambda: Words(width, wide // MANY), tensors, flux.original)


def _eye(request: Request, parts: Parts) -> Component[Eye]:
    source = request.options.get("redux_eye") or request.options["redux_net"]
    tensors, config = _found(source, "redux_eye", "image_encoder", PATCHES)
    shape = shape_in(tensors, config)
    return parts.filled(lambda: Eye(shape), tensors, flux.original, idle=IDLE)


def _found(source: str, option: str, folder: str, known: str) -> tuple[Tensors, Mapping[str, Any]]:
    """The tensors of a part, by a name that it is known by, and the configuration beside them. Raises WeightsError."""
    bundle = open_bundle(place(source))
    for name in (folder, ""):
        tensors = bundle.sets.get(name)
        for own in () if tensors is None else (tensors, tensors.under(PREFIX)):
            if known in own.places:
                return own, bundle.configs.get(name, {})
    advice = f"Name a file or folder that has it: --option {option}=PATH."
    raise WeightsError(f"{bundle.where} has no {folder}, whose {known} is looked for. {advice}")


def shape_in(tensors: Tensors, config: Mapping[str, Any]) -> Shape:
    """What names and shapes say of a tower; config: of transformers' folder, which knows the heads and the samples."""
    width, _, patch, _ = tensors.shape(PATCHES)
    layers = {name.split(".")[2] for name in tensors.names() if name.startswith("encoder.layers.")}
    hidden = tensors.shape("encoder.layers.0.mlp.fc1.weight")[0]
    side = isqrt(tensors.shape("embeddings.position_embedding.weight")[0])
    told = config.get("vision_config", config)
    heads = told.get("num_attention_heads", max(width // HEAD, 1))
    usual = SO400M.samples if (side, patch) == (SO400M.side, SO400M.patch) else side * patch
    return Shape(width, len(layers), heads, hidden, side, patch, told.get("image_size", usual))
