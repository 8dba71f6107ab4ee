"""The choice: what the rules say, of models made up here and of the catalogue's own."""

import socket
import tomllib
from dataclasses import replace
from datetime import date

import pytest

from triptych.catalogue import ABILITIES, SUBJECTS, entries, lifecycle
from triptych.catalogue.choose import Wish, advice, auto, ranked
from triptych.catalogue.entries import PACKAGE, Entry, Lifecycle, PriceRow, shipped
from triptych.catalogue.points import POINTS
from triptych.catalogue.reading import WORDS, _plain, read
from triptych.catalogue.rules import FINAL, RULES
from triptych.catalogue.wish import price, within
from triptych.errors import InvalidField, PriceUnknown, RequestError, UnknownName

TODAY = date(2026, 11, 26)
LIVES = Lifecycle("active", "a test", TODAY)
FOX = Entry(
    name="fox",
    provider="vendor",
    title="Fox",
    vendor="Fox & Co",
    takes=("text",),
    makes=("image",),
    family="fox",
    summary="a model of this test",
    weights_licence="closed",
    outputs_licence="fair",
    commercial=True,
    lifecycle=LIVES,
    abilities=("seed",),
    good_at={"photo": 4, "product": 3, "fidelity": 4, "speed": 3},
    largest=(1024, 1024),
    prices=(PriceRow("image", "a test", TODAY, dollars=0.1),),
)


def row(per="image", **told):
    return PriceRow(per, "a test", TODAY, **told)


def all_usable(entry):
    return ""


def none_usable(entry):
    return "" if entry.family == "mini" else f"needs the key of {entry.provider}"


def choice(wish, *models, usable=all_usable):
    return ranked(wish, usable, {one.name: one for one in models}, TODAY)


def names(ranking):
    return [line.entry.name for line in ranking.lines]


def why(wish, model):
    (ruled,) = choice(wish, model).ruled
    return ruled.rule, ruled.why


def top(wish, usable=none_usable, many=3):
    return names(ranked(wish, usable, shipped(), TODAY))[:many]


# The five recommendations of the outline, with today's living models: ../shared/systems.md says which systems there are
# for each. What is gone (DALL-E 3, Imagen, Sora, Veo 2 and 3) or has no interface (Midjourney, Suno, Udio) is in none.

FIVE = {
    "product": (
        Wish("brand-consistent product photo of a shoe"),
        {
            "gemini-3-pro-image",
            "flux-2-max",
            "flux-2-pro",
            "flux-3-image",
            "flux-kontext-max",
            "gpt-image-2.6-sunburst",
        },
    ),
    "illustration": (
        Wish("a flat illustration of a fox that reads a book"),
        {"gpt-image-2.6-flare", "gpt-image-2.6-sunburst", "gpt-image-2.5-flare", "fal:fal-ai/recraft/v3/text-to-image"},
    ),
    "local": (
        Wish("a red fox in the snow", local_only=True),
        {"flux1-dev", "flux1-schnell", "sd3.5-large"},
    ),
    "video": (
        Wish("a clip of a horse galloping along a beach"),
        {"gemini-omni-1.2-flash", "gemini-omni-1.1-flash", "flux-3-video"},
    ),
    "music": (
        Wish("a song about the sea"),
        {"eleven-music-v2.5", "lyria-3.5", "lyria-3-pro-preview"},
    ),
}


@pytest.mark.parametrize("usable", [none_usable, all_usable])
@pytest.mark.parametrize("name", FIVE)
def test_the_five_recommendations(name, usable):
    wish, expected = FIVE[name]
    found = top(wish, usable)
    assert set(found) <= expected
    assert len(found) == 3


def test_the_first_of_each_recommendation():
    firsts = {name: top(wish)[0] for name, (wish, _) in FIVE.items()}
    assert firsts["video"] == "gemini-omni-1.2-flash"  # the successor of Veo
    assert firsts["local"] == "flux1-dev"
    assert firsts["music"] == "eleven-music-v2.5"
    assert firsts["illustration"] == "gpt-image-2.6-flare"  # what it names as the successor of DALL-E 3
    assert firsts["product"] in {"flux-2-max", "gemini-3-pro-image"}


def test_product_photography_keeps_to_references():
    assert all("reference" in shipped()[name].abilities for name in top(FIVE["product"][0]))


def test_instrumental_music_is_no_song():
    assert set(top(Wish("slow instrumental music, strings"), many=4)) >= {
        "eleven-music-v2.5",
        "stable-audio-2.5",
        "lyria-3.5",
    }
    assert top(Wish("sound effect of a heavy door"))[0] == "eleven-sound-effects"


# What a prompt is taken for. ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "medium"),
    [
        ("a red heart", "image"),
        ("a PHOTO of a film projector", "image"),
        ("a video of a piano", "video"),
        ("a video game hero", "image"),
        ("slow-motion shot of a wave", "video"),
        ("two clips of a fox", "video"),
        ("album cover for a song", "image"),
        ("a song about photos", "audio"),
        ("sound of a music box", "audio"),
        ("an áudio logo", "audio"),
        ("musical chairs", "image"),
    ],
)
def test_the_first_word_that_means_a_medium_decides(prompt, medium):
    assert read(prompt).medium == medium


def test_a_medium_that_is_said_wins_over_words():
    told = read("a song about photos", "image")
    assert told.medium == "image"
    assert told.why == "image is asked for"
    assert set(told.subjects) == {"photo"}


@pytest.mark.parametrize(
    ("prompt", "subjects", "abilities"),
    [
        ("brand-consistent product photo of a shoe", {"photo", "product"}, {"reference"}),
        ("a packshot, cut out", {"photo", "product"}, {"transparent"}),
        ('a mug with "Good morning" on it', {"typography"}, {"text"}),
        ("a watercolour of a fox", {"illustration"}, set()),
        ("portrait of an old woman", {"people"}, set()),
        ("remove the lamp", {"edit"}, {"edit"}),
        ("a fox", {"photo", "illustration"}, set()),
        ("a clip of women dancing, with music", {"video", "motion", "people"}, {"audio"}),
        ("footage of fog", {"video", "motion"}, set()),
        ("a ballad, sung by a choir", {"song"}, {"lyrics"}),
        ("a quick draft of a jingle", {"music", "speed"}, set()),
    ],
)
def test_subjects_and_what_is_asked(prompt, subjects, abilities):
    told = read(prompt)
    assert (set(told.subjects), set(told.abilities)) == (subjects, abilities)


def test_the_table_of_words():
    table = tomllib.loads(WORDS.read_text())
    assert set(table["subject"]) <= set(SUBJECTS)
    assert set(table["ability"]) <= set(ABILITIES)
    for kind in table.values():
        for name, told in kind.items():
            odd = [word for word in told["words"] if _plain(word) != f" {word} "]
            assert not odd, f"{name}: words are looked for in small letters, without accents and hyphens"
            assert len(set(told["words"])) == len(told["words"])
            assert set(told.get("asks", ())) <= set(ABILITIES)
            assert {*told.get("always", ()), *told.get("otherwise", ())} <= set(SUBJECTS)


# What rules a model out. ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "changes", "rule", "told"),
    [
        (Wish(), {"lifecycle": replace(LIVES, state="shut_down", ends=date(2026, 5, 12))}, "alive", "2026-05-12"),
        (Wish(), {"lifecycle": replace(LIVES, state="deprecated", ends=TODAY)}, "alive", "was shut down"),
        (Wish(), {"provider": "", "lifecycle": replace(LIVES, state="no_public_api")}, "alive", "no public API"),
        (Wish(), {"provider": ""}, "alive", "nobody"),
        (Wish("a clip"), {}, "medium", "makes image, not video"),
        (Wish(), {"requires": ("init",)}, "input", "a picture to change"),
        (Wish(needs=("seed",)), {"requires": ("control",)}, "input", "a control picture"),
        (Wish(local_only=True), {}, "local-only", "runs at vendor"),
        (Wish(commercial=True), {"commercial": False}, "licence", "may not be sold: fair"),
        (Wish(needs=("seed", "first_frame", "mask")), {}, "needs", "does not do: first frame, mask"),
        (Wish(size=(2048, 1024)), {}, "size", "1024 x 1024 at the most, 2048 x 1024 is wanted"),
        (Wish("music", duration=31), {"makes": ("audio",), "longest": 30.0}, "duration", "30 s at the most, 31 s"),
        (Wish(budget=0.05), {}, "budget", "costs $0.10, the budget is $0.05"),
        (Wish(budget=0.15, count=2), {}, "budget", "costs $0.20"),
        (Wish(budget=5), {"prices": ()}, "budget", "not known: no source"),
        (Wish(budget=0.3), {"prices": (row(least=0.1, most=0.4),)}, "budget", "may cost up to $0.40"),
        (Wish(max_seconds=9), {"seconds": (2.0, 10.0)}, "max-seconds", "takes up to 10 s"),
    ],
)
def test_what_rules_a_model_out(wish, changes, rule, told):
    found, sentence = why(wish, replace(FOX, **changes))
    assert found == rule
    assert told in sentence


@pytest.mark.parametrize(
    ("wish", "changes"),
    [
        (Wish(), {"lifecycle": replace(LIVES, state="deprecated", ends=date(2026, 11, 27))}),
        (Wish(), {"lifecycle": replace(LIVES, state="unknown")}),
        (Wish(needs=("edit",)), {"requires": ("init",), "abilities": ("edit",)}),
        (Wish("remove the lamp"), {"requires": ("init",)}),
        (Wish(inputs=("init",)), {"requires": ("init",)}),
        (Wish(local_only=True, budget=0), {"provider": "local", "prices": ()}),
        (Wish(size=(2048, 512)), {}),  # as many pixels as 1024 x 1024
        (Wish(size=(9000, 9000)), {"largest": None}),
        (Wish(budget=0.1), {}),
        (Wish(max_seconds=1), {}),  # how long it takes is not known: told, and not out
        (Wish(max_seconds=10), {"seconds": (2.0, 10.0)}),
    ],
)
def test_what_does_not(wish, changes):
    assert names(choice(wish, replace(FOX, **changes))) == ["fox"]


def test_usable_only_says_what_is_missing():
    (ruled,) = choice(Wish(usable_only=True), FOX, usable=lambda entry: "needs FOX_API_KEY").ruled
    assert (ruled.rule, ruled.why) == ("usable-only", "needs FOX_API_KEY")
    (line,) = choice(Wish(), FOX, usable=lambda entry: "needs FOX_API_KEY").lines
    assert line.reasons[0] == line.missing == "needs FOX_API_KEY"


def test_every_broken_rule_is_told_in_order():
    (ruled,) = choice(Wish(budget=0.01, local_only=True, needs=("mask",)), FOX).ruled
    assert [*ruled.broken] == ["local-only", "needs", "budget"]


@pytest.mark.parametrize(
    "given",
    [{"needs": ("wings",)}, {"budget": -1.0}, {"max_seconds": float("nan")}, {"duration": float("inf")}, {"count": 0}],
)
def test_a_wish_that_cannot_be(given):
    with pytest.raises(UnknownName if "needs" in given else InvalidField):
        Wish(**given)


@pytest.mark.parametrize("wish", [Wish("a song", size=(64, 64)), Wish("a photo", duration=3)])
def test_a_wish_that_its_medium_does_not_have(wish):
    with pytest.raises(InvalidField):
        choice(wish, FOX)


# What counts. ---------------------------------------------------------------------------------------------------------


def test_a_score_by_hand():
    """2 x (4 + 3) / 2 for the subjects, 0.5 x 4 of fidelity, 0.2 x 3 of speed, $0.10 is two tenfolds above $0.001."""
    (line,) = choice(Wish("product photo"), FOX).lines
    assert line.score == 7 + 2 + 0.6 - 1 + 0.5 + 0.5
    assert [term.name for term in line.terms] == ["fit", "fidelity", "speed", "price", "usable", "licence"]
    assert line.reasons[0] == "photo 4, product 3 (+7)"


@pytest.mark.parametrize(
    ("wish", "changes", "name", "points"),
    [
        (Wish("a photo, cut out"), {"abilities": ("transparent",)}, "asked", 1.0),
        (Wish("a photo, cut out"), {}, "asked", 0.0),
        (Wish(), {"prices": ()}, "no price", -2.0),
        (Wish(), {"prices": (row(least=0.05, most=0.15),)}, "price", -1.0),
        (Wish(), {"prices": (row(dollars=0.0005),)}, "price", None),
        (Wish(), {"lifecycle": replace(LIVES, state="unknown")}, "doubt", -2.0),
        (Wish(), {"lifecycle": replace(LIVES, state="deprecated", ends=date(2027, 1, 1))}, "doubt", -2.0),
        (Wish(), {"commercial": False}, "licence", None),
        (Wish(size=(64, 64), max_seconds=1), {"largest": None}, "unchecked", -2.0),
        (Wish(size=(64, 64)), {}, "unchecked", None),
    ],
)
def test_terms(wish, changes, name, points):
    (line,) = choice(wish, replace(FOX, **changes)).lines
    found = [term.points for term in line.terms if term.name == name]
    assert found == ([] if points is None else [points])


def test_of_equal_ones_the_usable_the_abler_the_newer_the_name():
    def usable(entry):
        return "needs a key" if entry.name.endswith("keyless") else ""

    models = [
        replace(FOX, name="fox-2.5"),
        replace(FOX, name="fox-10"),
        replace(FOX, name="fox-2.6-b"),
        replace(FOX, name="fox-2.6-a"),
        replace(FOX, name="able", abilities=("seed", "mask")),
        replace(FOX, name="fox-99-keyless"),
    ]
    assert names(choice(Wish(), *models, usable=usable)) == [
        "able",
        "fox-10",
        "fox-2.6-a",
        "fox-2.6-b",
        "fox-2.5",
        "fox-99-keyless",
    ]


def test_the_order_in_which_models_are_known_does_not_matter():
    known = shipped()
    backwards = dict(reversed(known.items()))
    wish = Wish("product photo of a shoe")
    assert names(ranked(wish, none_usable, known, TODAY)) == names(ranked(wish, none_usable, backwards, TODAY))


# Over the whole catalogue. --------------------------------------------------------------------------------------------

WISHES = [
    Wish("a fox"),
    Wish("a clip of a fox", duration=8, needs=("audio",)),
    Wish("a song", budget=0.1),
    Wish('a poster that says "Fox"', size=(2048, 2048), budget=0.2, commercial=True),
    Wish("a fox", local_only=True, max_seconds=30, needs=("negative", "seed")),
]


@pytest.mark.parametrize("wish", WISHES)
def test_every_model_is_ranked_or_ruled_out_with_reasons(wish):
    ranking = ranked(wish, none_usable, shipped(), TODAY)
    told = [*(line.entry.name for line in ranking.lines), *(one.entry.name for one in ranking.ruled)]
    assert sorted(told) == sorted(shipped())
    assert all(line.reasons for line in ranking.lines)
    assert all(one.why and set(one.broken) <= set(RULES) for one in ranking.ruled)
    scores = [line.score for line in ranking.lines]
    assert scores == sorted(scores, reverse=True)
    for line in ranking.lines:
        assert line.score == pytest.approx(sum(term.points for term in line.terms), abs=0.005)
        assert {term.name for term in line.terms} <= set(POINTS)
        assert lifecycle.alive(line.entry, TODAY)
        assert ranking.reading.medium in line.entry.makes
        if wish.budget is not None:
            assert line.price is not None
            assert line.price.most <= wish.budget


@pytest.mark.parametrize(
    "more",
    [{"budget": 0.05}, {"local_only": True}, {"needs": ("text", "seed")}, {"size": (2048, 2048)}, {"commercial": True}],
)
def test_a_wish_for_more_leaves_fewer(more):
    plain = set(names(ranked(Wish("a fox"), none_usable, shipped(), TODAY)))
    strict = set(names(ranked(Wish("a fox", **more), none_usable, shipped(), TODAY)))
    assert strict < plain or (strict == plain and more == {"commercial": True})


def test_what_was_alive_in_spring_is_not_today():
    gone = {"dall-e-3", "imagen-4.0-generate-001", "gpt-image-1"}
    assert not gone & set(names(ranked(Wish("a fox"), none_usable, shipped(), TODAY)))
    after = set(names(ranked(Wish("a fox"), none_usable, shipped(), date(2027, 12, 31))))
    assert not {"gpt-image-1.5", "gpt-image-1-mini", "chatgpt-image-latest"} & after


def test_what_a_card_requires_the_catalogue_says():
    """Where a vendor's card cannot do without a file, the choice knows it."""
    asked = 0
    for path in sorted((PACKAGE / "providers").glob("*.toml")):
        for card in tomllib.loads(path.read_text()).get("cards", ()):
            required = card.get("settings", {}).get("required", ())
            files = {name for name in required if card["fields"].get(name, {}).get("kind") == "artifact"}
            if files and card["name"] in shipped():
                asked += 1
                assert set(shipped()[card["name"]].requires) == files, card["name"]
    assert asked >= 13


def test_nothing_is_asked_of_the_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    assert ranked(Wish("a fox"), none_usable).lines


# Without keys and weights. --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "model"),
    [
        ("a red heart", "mini-image"),
        ("product photo of a shoe", "mini-image"),
        ("a clip of a fox", "mini-video"),
        ("a song", "mini-audio"),
    ],
)
def test_where_nothing_else_can_be_used_what_ships_is_taken(prompt, model):
    assert auto(Wish(prompt), none_usable, shipped(), TODAY).entry.name == model


@pytest.mark.parametrize("prompt", ["product photo of a shoe", "a clip of a fox", "instrumental music"])
def test_and_where_all_can_it_is_among_the_last(prompt):
    found = names(ranked(Wish(prompt), all_usable, shipped(), TODAY))
    place = next(place for place, name in enumerate(found) if name.startswith("mini-"))
    assert place >= 0.6 * (len(found) - 1)


def test_what_the_user_has_a_key_for_is_taken():
    line = auto(
        Wish("product photo of a shoe"), lambda one: "" if one.provider == "bfl" else "no key", shipped(), TODAY
    )
    assert line.entry.provider == "bfl"


def test_what_has_no_price_is_not_taken_unasked():
    dear = replace(FOX, name="dear", prices=(row(dollars=90.0),), good_at={})
    free = replace(FOX, name="unpriced", prices=())
    known = {one.name: one for one in (free, dear)}
    assert names(ranked(Wish(), all_usable, known, TODAY))[0] == "unpriced"
    assert auto(Wish(), all_usable, known, TODAY).entry.name == "dear"


def test_where_nothing_can_be_used_that_is_said():
    with pytest.raises(
        RequestError, match=r"no model that makes image .* nearest is fox: needs a key.*triptych doctor"
    ):
        auto(Wish(), lambda one: "needs a key", {"fox": FOX}, TODAY)


# What to loosen. ------------------------------------------------------------------------------------------------------


def test_advice_names_what_ruled_out_the_most_and_what_would_be_left():
    cheap = replace(FOX, name="cheap", prices=(row(dollars=0.02),))
    masked = replace(FOX, name="masked", abilities=("mask",), prices=(row(dollars=0.001),))
    wish = Wish(budget=0.01, needs=("seed",))
    told = advice(choice(wish, FOX, cheap, masked))
    assert told == (
        "--budget ruled out the most, 2 of 3. "
        "Without --needs there would be 1, the best masked (it does not do: seed). "
        "Without --budget there would be 2, the cheapest cheap at $0.02."
    )


def test_advice_of_time_names_the_fastest():
    slow, slower = (replace(FOX, name=name, seconds=(1.0, most)) for name, most in [("slow", 20.0), ("slower", 60.0)])
    assert "Without --max-seconds there would be 2, the fastest slow in up to 20 s." in advice(
        choice(Wish(max_seconds=5), slower, slow)
    )


def test_advice_where_one_is_not_enough():
    told = advice(choice(Wish(budget=0.01, needs=("mask",)), FOX))
    assert "The nearest is fox: it does not do: mask; it costs $0.10, the budget is $0.01." in told


def test_advice_of_nothing_at_all():
    assert advice(choice(Wish(), FOX)) == ""
    assert "nothing alive that makes video" in advice(choice(Wish("a clip"), FOX))


def test_advice_speaks_of_options_that_there_are():
    from typer.main import get_command

    from triptych.cli import app

    known = {option for one in get_command(app).commands["choose"].params for option in one.opts}
    assert {f"--{name}" for name in RULES if name not in FINAL} <= known


# What the wish costs. -------------------------------------------------------------------------------------------------


def cost(wish, medium="image", **changes):
    return price(replace(FOX, **changes), wish, medium)


def test_what_is_not_said_is_a_usual_size_and_length():
    assert cost(Wish(), prices=(row("megapixel", dollars=0.03),)).most == pytest.approx(0.03)
    assert cost(Wish(), "video", prices=(row("second", dollars=0.1),)).most == pytest.approx(0.5)
    assert cost(Wish(), "video", prices=(row("second", dollars=0.1),), longest=4.0).most == pytest.approx(0.4)
    assert cost(Wish(duration=20, count=2), "audio", prices=(row("second", dollars=0.1),)).most == pytest.approx(4)


def test_pictures_that_come_along_are_paid():
    rows = (row(dollars=0.04), row("input_image", dollars=0.01))
    assert cost(Wish(), prices=rows).most == pytest.approx(0.04)
    assert cost(Wish(needs=("reference",)), prices=rows).most == pytest.approx(0.05)
    assert cost(Wish(inputs=("init", "mask")), prices=rows).most == pytest.approx(0.05)
    assert cost(Wish(), prices=rows, requires=("init",)).most == pytest.approx(0.05)


SIZES = (
    row(dollars=0.04, when={"image_size": ["", "1K"]}),
    row(dollars=0.08, when={"image_size": "2K"}),
    row(dollars=0.16, when={"image_size": "4K"}),
)


@pytest.mark.parametrize(
    ("size", "dollars"),
    [(None, 0.04), ((512, 512), 0.04), ((1024, 1024), 0.04), ((1025, 1024), 0.08), ((4096, 2048), 0.16)],
)
def test_a_size_is_the_smallest_word_of_the_list_that_holds_it(size, dollars):
    assert cost(Wish(size=size), prices=SIZES).most == dollars


def test_a_size_beyond_the_list_has_no_price():
    with pytest.raises(PriceUnknown, match="no line of its price list is for 4097 x 4096"):
        cost(Wish(size=(4097, 4096)), prices=SIZES)


@pytest.mark.parametrize(
    ("word", "size"), [("720p", (1280, 720)), ("hd", (1280, 720)), ("fhd", (1920, 1080)), ("768sq", (768, 768))]
)
def test_names_of_sizes(word, size):
    rows = (row("second", dollars=0.1, when={"resolution": word}),)
    assert cost(Wish(size=size), "video", prices=rows).most == pytest.approx(0.5)
    with pytest.raises(PriceUnknown):
        cost(Wish(size=(size[0] + 16, size[1])), "video", prices=rows)


def test_what_the_wish_leaves_open_makes_a_range():
    rows = (row(dollars=0.01, when={"quality": "low"}), row(least=0.1, most=0.4, when={"quality": ["medium", "high"]}))
    found = cost(Wish(), prices=rows)
    assert (found.least, found.most, found.why) == (0.01, 0.4, "by quality")


def test_an_option_that_stays_within_the_budget_is_told():
    qualities = [("low", 0.01), ("medium", 0.04), ("high", 0.2)]
    rows = (row(least=0.01, most=0.2), *(row(dollars=cost, when={"quality": word}) for word, cost in qualities))
    model = replace(FOX, prices=rows)
    assert within(model, Wish(budget=0.05), "image")[0] == "quality=medium"
    assert within(model, Wish(budget=0.001), "image") is None
    _, told = why(Wish(budget=0.05), model)
    assert told.endswith("up to $0.20, the budget is $0.05; with --option quality=medium it is at most $0.04")


def test_prices_of_the_catalogue_for_a_wish():
    """Against price lists of 2026-11-23 (flux-2-max $0.07 and 0.03 a further megapixel)."""
    known = entries()
    assert price(known["flux-2-max"], Wish(size=(2048, 2048)), "image").most == pytest.approx(0.07 + 3 * 0.03)
    assert price(known["gemini-3-pro-image"], Wish(count=3), "image").most == pytest.approx(3 * 0.134)
    assert price(known["veo-3.1-generate-001"], Wish(duration=8), "video").most == pytest.approx(3.2)
    assert price(known["veo-3.1-generate-001"], Wish(duration=8, size=(3840, 2160)), "video").most == pytest.approx(4.8)
    assert price(known["lyria-3.5"], Wish(), "audio").most == pytest.approx(0.08)
    assert price(known["sdxl"], Wish(), "image").most == 0
