"""Learned words: the files that others write, what does not fit, and where names stand in prompts."""

import pytest
import torch
from safetensors.torch import save_file

from triptych.errors import FileProblem, InvalidField, WeightsError
from triptych.text.clip_tokens import ids
from triptych.text.inversion import CONVERT, Inversion, Inversions, load

L, G = torch.randn(3, 16), torch.randn(3, 24)


def saved(path, **tensors):
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("tensors", "widths", "name"),
    [
        ({"emb_params": L}, [16], "file"),
        ({"clip_g": G}, [24], "file"),
        ({"<cat-toy>": L[0]}, [16], "<cat-toy>"),
        ({"clip_g": G, "clip_l": L}, [16, 24], "file"),
    ],
)
def test_files_that_others_write(tmp_path, tensors, widths, name):
    inversion = load(saved(tmp_path / "file.safetensors", **tensors), widths)
    assert inversion.name == name
    assert [vectors.shape[1] for vectors in inversion.vectors] == widths
    torch.testing.assert_close(
        inversion.vectors[0][0], tensors["clip_l"][0] if len(widths) == 2 else inversion.vectors[0][0]
    )
    assert load(tmp_path / "file.safetensors", widths, "other").name == "other"


@pytest.mark.parametrize(
    ("tensors", "widths", "said"),
    [
        ({"emb_params": L}, [24], r"\(3, 16\), and this model takes \(n, 24\)"),
        ({"emb_params": L}, [16, 24], r"\(n, 16\) and \(n, 24\)"),
        ({"clip_l": L, "clip_g": G}, [16], "another model"),
        ({"emb_params": torch.zeros(76, 16)}, [16], "1 to 75"),
        ({"emb_params": torch.zeros(0, 16)}, [16], "1 to 75"),
        ({"clip_l": L, "clip_g": G[:2]}, [16, 24], "alike"),
        ({"emb_params": torch.zeros(1, 2, 16)}, [16], "another model"),
    ],
)
def test_vectors_that_do_not_fit(tmp_path, tensors, widths, said):
    with pytest.raises(WeightsError, match=said):
        load(saved(tmp_path / "file.safetensors", **tensors), widths)


@pytest.mark.parametrize("old", [{"string_to_param": {"*": L.clone().requires_grad_()}, "name": "x"}, {"<x>": L}])
def test_pickles_are_refused_and_what_is_advised_converts_them(tmp_path, monkeypatch, old):
    monkeypatch.chdir(tmp_path)
    torch.save(old, "style.pt")
    with pytest.raises(FileProblem, match="stranger's code") as caught:
        load(tmp_path / "style.pt", [16])
    command = CONVERT.format(old="style.pt", new="style.safetensors")
    assert command in str(caught.value)
    exec(command, {})
    inversion = load(tmp_path / "style.safetensors", [16])
    assert inversion.name == "style"
    torch.testing.assert_close(inversion.vectors[0], L)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for name in ("broken.safetensors", "missing.safetensors"):
        with pytest.raises(FileProblem, match="no readable safetensors"):
            load(tmp_path / name, [16])


def words(*names, prefix="", count=2):
    return Inversions([Inversion(name, (torch.zeros(count, 16),)) for name in names], prefix)


@pytest.mark.parametrize(
    "text",
    ["a my-style", "a MY-STYLE", "a my-style, a", "my-style's", "(my-style)", "my-style-2"],
)
def test_names_in_texts(text):
    assert (49408, 49409) in words("my-style").items(text)


@pytest.mark.parametrize("text", ["a my-styles", "amy-style", "my-style2", "my style", "ſ"])
def test_parts_of_other_words_are_not_names(text):
    assert words("my-style").items(text) == [(token,) for token in ids(text)]


def test_longer_names_come_first_and_any_letters_do():
    found = words("cat", "cat toy", "<cat>", "K")
    assert found.items("cat toy, cat <cat>, k \u212a") == [
        (49410, 49411),
        (267,),
        (49408, 49409),
        (49412, 49413),
        (267,),
        (49414, 49415),
        (49414, 49415),
    ]
    assert found.table(0).shape == (8, 16)


def test_a_prefix_stands_before_every_name():
    found = words("cat", prefix="embedding:")
    assert found.items("embedding:cat cat") == [(49408, 49409), (2368,)]


def test_a_name_is_given_once():
    with pytest.raises(InvalidField, match="each name once"):
        words("cat", "Cat")


def test_without_learned_words():
    assert Inversions().items("a cat") == [(320,), (2368,)]
    assert Inversions().table(0) is None
