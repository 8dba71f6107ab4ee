"""Cards: read from every family that is installed, and refused with a reason where they are broken."""

from pathlib import Path

import pytest

from triptych import families
from triptych.engine.samplers import SAMPLERS
from triptych.engine.spacing import SPACINGS
from triptych.errors import FileProblem, UnknownName, WeightsError

CARD = """
[[cards]]
name = "{name}"
family = "{family}"
media = "image"
license = "none"
axes = [{{ name = "height", default = 8, minimum = 8, maximum = 8 }}]
fields = {{ prompt = {{ kind = "str" }} }}
{more}
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a family of this name and text, as a package of somebody else would."""

    def install(family, text):
        (tmp_path / f"{family}.py").write_text("raise ImportError('reading cards imports no family')")
        (tmp_path / f"{family}.toml").write_text(text)
        folder = tmp_path / f"{family}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {family}\nVersion: 1\n")
        (folder / "entry_points.txt").write_text(f"[triptych.families]\n{family} = {family}\n")
        monkeypatch.syspath_prepend(tmp_path)
        forget()

    yield install
    monkeypatch.undo()
    forget()


def forget():
    families.cards.cache_clear()
    families._modules.cache_clear()


def test_the_names_are_the_engines():
    assert set(families.SAMPLERS) == set(SAMPLERS)
    assert set(families.SPACINGS) == set(SPACINGS)


@pytest.mark.parametrize("name", families.cards())
def test_every_card_makes_sense(name):
    card = families.cards()[name]
    assert card.name == name
    assert card.summary
    assert card.axes
    assert card.fields["prompt"].kind == "str"
    for axis in card.axes:
        axis.length(None)  # the default is allowed
    for field, entry in card.fields.items():
        if entry.default is not None and field != "prompt":
            entry.check(field, entry.default)
        for choice in entry.choices:
            entry.check(field, choice)


def test_samplers_and_spacings_are_choices():
    fields = families.cards()["toy"].fields
    assert fields["sampler"].choices == families.SAMPLERS
    assert fields["spacing"].choices == families.SPACINGS


def test_a_family_of_another_package_is_read_without_importing_it(installed):
    installed("theirs", CARD.format(name="theirs-1", family="theirs", more=""))
    assert families.cards()["theirs-1"].axes[0].maximum == 8
    assert "mini-image" in families.cards()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[cards]", "cannot be read"),
        (CARD.format(name="x", family="other", more=""), "the file is of 'theirs'"),
        (CARD.format(name="x", family="theirs", more="colour = 1"), "colour"),
        (CARD.format(name="mini-image", family="theirs", more=""), "'mini-image' already"),
        ("", "cards"),
    ],
)
def test_a_broken_family_is_named(installed, text, told):
    installed("theirs", text)
    with pytest.raises(FileProblem, match=told) as raised:
        families.cards()
    assert "theirs.toml" in str(raised.value)


def test_missing_weights_are_named(installed):
    installed("theirs", CARD.format(name="x", family="theirs", more='settings = { weights = "x.safetensors" }'))
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        families.fingerprint(families.cards()["x"])


def test_fingerprints_tell_models_apart():
    toy, slow = (families.fingerprint(families.cards()[name]) for name in ("toy", "slow"))
    assert toy["card"] != slow["card"]
    assert toy == families.fingerprint(families.cards()["toy"])


def test_weights_are_hashed(installed, tmp_path):
    installed("theirs", CARD.format(name="x", family="theirs", more='settings = { weights = "x.safetensors" }'))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "x.safetensors").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert families.fingerprint(families.cards()["x"])["weights"] == {"x.safetensors": digest}


def test_an_unknown_family_is_an_error():
    with pytest.raises(UnknownName, match="unknown family 'nosuch'"):
        families._place("nosuch")


def test_shipped_cards_lie_beside_their_module():
    for path in families.HERE.glob("*.toml"):
        assert Path(path).with_suffix(".py").is_file()
