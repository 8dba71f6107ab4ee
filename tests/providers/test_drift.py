"""What `max_drift` chooses: by the model's own table, by what the card says, never by nothing."""

import json
from dataclasses import replace

import pytest

from triptych import families
from triptych.errors import FileProblem, InvalidField
from triptych.families import cards
from triptych.providers.here import drift
from triptych.providers.here.drift import Row, Table, Tables
from triptych.providers.local import Local
from triptych.types import Request

WALK = {"steps": 20, "sampler": "dpmpp_2m", "spacing": "uniform"}
TABLE = Table(
    (
        Row({"fast": 2, "merge": 0.0}, 1.6, 42.0, 38.0),
        Row({"fast": 3, "merge": 0.0}, 2.1, 33.0, 30.0),
        Row({"fast": 1, "merge": 0.5}, 1.2, 28.0, 25.0),
        Row({"fast": 3, "merge": 0.5}, 2.4, 27.0, 24.0),
        Row({"fast": 4, "merge": 0.0}, 0.9, 45.0, 41.0),  # on a machine that was busy
    ),
    12.5,
    WALK,
)


@pytest.fixture
def card():
    """mini-image, as if it had merging too, with what is made up here in its settings."""
    card = cards()["mini-image"]
    fields = {**drift.fields(card), "merge": cards()["sd15"].fields["merge"], **card.fields}
    return replace(card, fields=fields, settings={**card.settings, "drift": [[2, 40.0], [3, 30.0], [4, 25.0]]})


def asked(card, **fields):
    options = fields.pop("options", {})
    return card.resolve(Request(card.name, "a red heart", options=options, **fields))


def settled(tables, card, **options):
    found, _ = tables.settled(card, asked(card, options=options))
    assert "max_drift" not in found.options
    assert card.resolve(found) == found
    return found.options["fast"], found.options["merge"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 1), ({"fast": 3}, 3), ({"max_drift": 50.0}, 1), ({"max_drift": 40.0}, 2), ({"max_drift": 26.0}, 3),
     ({"max_drift": 0.0}, 4), ({"fast": 1, "max_drift": 31.0}, 2)],
)  # fmt: skip
def test_what_a_card_says_holds_where_nothing_was_measured(card, tmp_path, options, expected):
    for folder in (None, tmp_path, tmp_path / "nowhere"):
        assert settled(Tables(folder), card, **options) == (expected, 0.0)


@pytest.mark.parametrize(
    ("bound", "expected"), [(50.0, (1, 0.0)), (38.0, (2, 0.0)), (30.0, (3, 0.0)), (24.5, (3, 0.0)), (20.0, (3, 0.5))]
)
def test_what_was_measured_comes_first_and_the_fastest_is_chosen(card, tmp_path, bound, expected):
    Tables(tmp_path / "drift").write(card, TABLE)
    assert settled(Tables(tmp_path / "drift"), card, max_drift=bound) == expected


def test_a_table_comes_back_as_it_was(card, tmp_path):
    assert Tables(tmp_path).read(card) is None
    path = Tables(tmp_path).write(card, TABLE)
    assert path.parent == tmp_path
    assert Tables(tmp_path).read(card) == TABLE
    newer = replace(TABLE, exact=3.0)
    assert Tables(tmp_path).write(card, newer) == path
    assert Tables(tmp_path).read(card) == newer


def test_it_belongs_to_the_weights_and_not_to_their_name_or_place(card, tmp_path, monkeypatch):
    hashes = {"unet/a.safetensors": "1", "vae/b.safetensors": "2"}
    monkeypatch.setattr(families, "fingerprint", lambda card: {"weights": hashes})
    Tables(tmp_path).write(card, TABLE)
    hashes = {"renamed.safetensors": "2", "other.safetensors": "1"}
    assert Tables(tmp_path).read(replace(card, name="/elsewhere")) == TABLE
    hashes = {"unet/a.safetensors": "1", "vae/b.safetensors": "3"}
    assert Tables(tmp_path).read(card) is None


def test_without_any_table_it_says_what_to_do(card, tmp_path):
    unmeasured = replace(card, name="my model.safetensors", settings={})
    with pytest.raises(InvalidField, match=r"max_drift: 30.0 given.*triptych calibrate 'my model.safetensors'"):
        settled(Tables(None), unmeasured, max_drift=30.0)


def test_nothing_is_fetched_to_find_that_nothing_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(families, "place", lambda source: pytest.fail("it was looked for"))
    with pytest.raises(InvalidField, match="triptych calibrate sd15"):
        Local(tmp_path / "latents", tmp_path / "drift").price(Request("sd15", "a fox", options={"max_drift": 30}))


@pytest.mark.parametrize("told", [{"fast": 2}, {"merge": 0.25}])
def test_only_one_of_them_is_told(card, told):
    with pytest.raises(InvalidField, match=f"max_drift chooses {next(iter(told))}"):
        settled(Tables(None), card, max_drift=30.0, **told)


@pytest.mark.parametrize("text", ["{", "[]", '{"drift": 1}', '{"drift": 2, "rows": [], "exact": 1, "settings": {}}'])
def test_a_table_that_cannot_be_read_is_named(card, tmp_path, text):
    path = Tables(tmp_path).write(card, TABLE)
    path.write_text(text)
    with pytest.raises(FileProblem, match="triptych calibrate mini-image") as raised:
        Tables(tmp_path).read(card)
    assert str(path) in str(raised.value)


def test_the_file_says_its_version(card, tmp_path):
    told = json.loads(Tables(tmp_path).write(card, TABLE).read_text())
    assert (told["drift"], told["model"]) == (1, "mini-image")


@pytest.mark.parametrize("name", cards())
def test_a_bound_goes_with_every_model_that_can_be_fast(name, tmp_path):
    assert ("max_drift" in Local(tmp_path).card(name).fields) == ("fast" in cards()[name].fields)


@pytest.mark.parametrize(
    ("fields", "told"), [({}, []), ({"steps": 8}, ["8 steps of dpmpp_2m (uniform)"]), ({"sampler": "euler"}, ["euler"])]
)
@pytest.mark.parametrize("kept", [True, False], ids=["own table", "the card's"])
def test_a_walk_unlike_what_was_measured_is_told(card, tmp_path, fields, told, kept):
    if kept:
        Tables(tmp_path).write(card, TABLE)
    _, warnings = Tables(tmp_path).settled(card, asked(card, options={"max_drift": 30.0}, **fields))
    assert len(warnings) == len(told)
    assert all(word in warning for word, warning in zip(told, warnings, strict=True))


def test_no_walk_is_compared_where_nothing_is_bounded(card):
    request = asked(card, steps=3)
    assert Tables(None).settled(card, request) == (request, ())


def test_rows_of_one_speed_are_told_apart_by_what_they_keep():
    rows = tuple(Row({"fast": n}, 1.5, kept, kept) for n, kept in ((2, 30.0), (3, 20.0)))
    assert Table(rows, 1.0, {}).fastest(10.0) == {"fast": 2}
