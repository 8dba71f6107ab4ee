"""Which layers are worth bringing into eight bits: large ones, none at a network's edges. Needs no tensor library."""

import re
from typing import Final

__all__ = ["is_worth"]

SMALLEST: Final = 64  # inputs and outputs of a layer that is worth it

# Layers at the edges of networks, small and where errors cost most: ComfyUI-GGUF's converter keeps them too.
EDGES: Final = re.compile(
    r"(^|\.)(time_embed|label_emb|time_embedding|add_embedding|time_in|vector_in|guidance_in|img_in|txt_in|final_layer"
    r"|[xyt]_embedder|context_embedder|time_text_embed|time_projection|text_embedding|patch_embedding|text_projection"
    r"|norm_out|head)(\.|$)|^proj_out$"
)


def is_worth(name: str, outputs: int, inputs: int) -> bool:
    """Whether a linear layer of this name and size is."""
    return min(inputs, outputs) >= SMALLEST and not EDGES.search(name)
