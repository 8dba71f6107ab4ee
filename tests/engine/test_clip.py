"""CLIP's text towers against transformers' on the same random weights, and the vectors that follow the table."""

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from triptych.engine.text.clip import ACTIVATIONS, END, TOWERS, WORDS, ClipText

WIDTH, LAYERS, HEADS = 32, 3, 4


def pair(activation="quick_gelu", projected=None):
    """transformers' tower and ours, with its weights."""
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
    config = CLIPTextConfig(
        **sizes,
        num_attention_heads=HEADS,
        hidden_act=activation,
        projection_dim=projected or WIDTH,
        eos_token_id=END,
        bos_token_id=49406,
        initializer_factor=5.0,
    )
    theirs = (CLIPTextModel if projected is None else CLIPTextModelWithProjection)(config).eval()
    for norm in (module for module in theirs.modules() if isinstance(module, torch.nn.LayerNorm)):
        torch.nn.init.normal_(norm.weight, 1, 0.3)
        torch.nn.init.normal_(norm.bias, 0, 0.3)
    ours = ClipText(WIDTH, LAYERS, HEADS, activation=activation, projected=projected).eval()
    ours.load_state_dict({name.removeprefix("text_model."): value for name, value in theirs.state_dict().items()})
    return theirs, ours


def texts():
    """(3, 77): a text that ends early, one that pads with 0, one that fills all."""
    ids = torch.randint(0, 49000, (3, 77), generator=torch.Generator().manual_seed(1))
    ids[:, 0] = 49406
    ids[0, 9:], ids[1, 30:], ids[2, 76] = END, 0, END
    ids[1, 30] = END
    return ids


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("projected", [None, 24])
@torch.no_grad()
def test_every_layer_and_the_pooled_vector_are_those_of_transformers(activation, projected):
    theirs, ours = pair(activation, projected)
    said = theirs(texts(), output_hidden_states=True)
    for skip in range(1, LAYERS + 2):
        encoded = ours(texts(), skip)
        torch.testing.assert_close(encoded.hidden, said.hidden_states[-skip], rtol=1e-5, atol=1e-5)
    last = ours(texts())
    torch.testing.assert_close(ours.final_layer_norm(last.hidden), said.last_hidden_state, rtol=1e-5, atol=1e-5)
    pooled = said.pooler_output if projected is None else said.text_embeds
    torch.testing.assert_close(last.pooled, pooled, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_nothing_is_heard_of_what_comes_later():
    _, ours = pair()
    ids = texts()
    changed = ids.clone()
    changed[:, 40:] = 7
    torch.testing.assert_close(ours(changed).hidden[:, :40], ours(ids).hidden[:, :40])


@torch.no_grad()
def test_ids_beyond_the_table_are_rows_of_the_extra_one():
    _, ours = pair()
    ids = texts()
    extra = ours.embeddings.token_embedding.weight[ids[0, 3:5]]
    beyond = ids.clone()
    beyond[0, 3:5] = torch.tensor([WORDS, WORDS + 1])
    torch.testing.assert_close(ours(beyond, extra=extra).hidden, ours(ids).hidden)
    torch.testing.assert_close(ours(ids, extra=extra).hidden, ours(ids).hidden)


@pytest.mark.parametrize(("name", "parameters"), [("vit-l", 123060480), ("vit-h", 354032640), ("vit-bigg", 694659840)])
def test_published_towers_have_their_published_sizes(name, parameters):
    with torch.device("meta"):
        tower = ClipText(**TOWERS[name])
    assert sum(value.numel() for value in tower.parameters()) == parameters
    assert (tower.depth, tower.width) == (TOWERS[name]["layers"], TOWERS[name]["width"])
