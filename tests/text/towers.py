"""Tiny towers with random weights, beside transformers' towers with the same ones."""

from functools import cache

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from triptych.engine.text.clip import END, ClipText


@cache
def pair(width, projected=None, seed=0):
    """transformers' tower and ours, of three layers and CLIP's table."""
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        hidden_act="gelu" if projected else "quick_gelu",
        projection_dim=projected or width,
        bos_token_id=49406,
        eos_token_id=END,
        initializer_factor=5.0,
    )
    theirs = (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()
    for norm in (module for module in theirs.modules() if isinstance(module, torch.nn.LayerNorm)):
        torch.nn.init.normal_(norm.bias, 0.2, 0.3)  # as trained: outputs have a mean
    ours = ClipText(width, 3, 2, activation=config.hidden_act, projected=projected).eval()
    ours.load_state_dict({name.removeprefix("text_model."): value for name, value in theirs.state_dict().items()})
    return theirs, ours
