"""Every error: in the drawn tree, constructible, and telling what was asked, what is allowed and what to do next."""

import inspect
import pickle
import re

import pytest

from triptych import errors
from triptych.errors import (
    BadAnswer,
    BrokenResult,
    Cancelled,
    Expired,
    FileProblem,
    GenerationError,
    Gone,
    InDoubt,
    InvalidField,
    KeyRefused,
    NeedsAction,
    NoRecipe,
    NotFinite,
    NotSetUp,
    OutOfCredit,
    OverBudget,
    PriceUnknown,
    ProviderError,
    RateLimited,
    Refused,
    RequestError,
    SingularTarget,
    TriptychError,
    UnknownName,
    Unreachable,
    WeightsError,
    WeightsMismatch,
)

CLASSES = {
    name: entry for name, entry in vars(errors).items() if inspect.isclass(entry) and issubclass(entry, Exception)
}

EXAMPLES = {
    TriptychError: (TriptychError("something"), ["something"]),
    RequestError: (RequestError("a wish"), ["a wish"]),
    UnknownName: (
        UnknownName("sampler", "eular", ["heun", "euler"]),
        ["sampler", "'eular'", "Did you mean 'euler'?", "Known: euler, heun"],
    ),
    InvalidField: (
        InvalidField("height", 7, "64 to 1024 pixels in steps of 8", "Nearest: 64."),
        ["height", "7 given", "64 to 1024 pixels in steps of 8 allowed", "Nearest: 64."],
    ),
    FileProblem: (FileProblem("fox.png: no such file; check the path."), ["fox.png", "check the path"]),
    NoRecipe: (NoRecipe("fox.png says nothing of how it was made."), ["fox.png"]),
    WeightsError: (WeightsError("a pickle"), ["a pickle"]),
    WeightsMismatch: (
        WeightsMismatch("mini", ["a", "b"], ["c"]),
        ["mini", "Missing (2): a, b", "Unexpected (1): c"],
    ),
    GenerationError: (GenerationError("it went wrong"), ["it went wrong"]),
    SingularTarget: (SingularTarget(1.0), ["t = 1", "start below t = 1", "v or flow"]),
    NotFinite: (NotFinite("sampling", 3, "Try heun."), ["not a number", "sampling", "step 3", "Try heun."]),
    BrokenResult: (BrokenResult("sample 1 is constant."), ["sample 1"]),
    Cancelled: (Cancelled("stopped at step 3"), ["step 3"]),
    PriceUnknown: (
        PriceUnknown("eleven-music-v2", "no source for its price was found"),
        ["eleven-music-v2", "is not known", "no source", "--unpriced"],
    ),
    **{
        kind: (kind("what was asked, and what to do."), ["what to do"])
        for kind in (
            Gone,
            NotSetUp,
            OverBudget,
            ProviderError,
            KeyRefused,
            OutOfCredit,
            RateLimited,
            Unreachable,
            Refused,
            NeedsAction,
            Expired,
            BadAnswer,
            InDoubt,
        )
    },
}


def drawn() -> dict[str, str]:
    """Name -> parent, as the tree at the top of the module draws them."""
    parents, above = {}, {}
    for line in errors.__doc__.splitlines():
        found = re.match(r"^([│ ]*(?:[├└]── )?)([A-Z]\w+)(?:\s{2,}|$)", line)
        if found:
            depth = len(found[1]) // 4
            above[depth] = found[2]
            parents[found[2]] = above[depth - 1] if depth else "Exception"
    return parents


def test_the_drawn_tree_is_the_tree():
    assert drawn() == {name: entry.__base__.__name__ for name, entry in CLASSES.items()}


def test_every_error_is_public_and_has_an_example_and_a_docstring():
    assert set(errors.__all__) == set(CLASSES)
    assert {entry.__name__ for entry in EXAMPLES} == set(CLASSES)
    assert all(entry.__doc__ for entry in CLASSES.values())


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_a_message_says_what_was_asked_what_is_allowed_and_what_to_do(kind):
    error, parts = EXAMPLES[kind]
    assert isinstance(error, TriptychError)
    for part in parts:
        assert part in str(error)


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_exit_codes(kind):
    expected = 2 if issubclass(kind, RequestError) else 130 if kind is Cancelled else 1
    assert kind.exit_code == expected


def test_parts_of_an_error_can_be_read():
    field = EXAMPLES[InvalidField][0]
    assert (field.field, field.given, field.allowed) == ("height", 7, "64 to 1024 pixels in steps of 8")
    name = EXAMPLES[UnknownName][0]
    assert (name.kind, name.given, name.allowed) == ("sampler", "eular", ["euler", "heun"])
    assert (EXAMPLES[NotFinite][0].stage, EXAMPLES[NotFinite][0].step) == ("sampling", 3)
    assert EXAMPLES[WeightsMismatch][0].missing == ("a", "b")


def test_an_unknown_name_near_to_nothing_gets_no_guess():
    assert "Did you mean" not in str(UnknownName("sampler", "zzz", ["euler"]))


def test_long_lists_of_tensors_are_cut():
    text = str(WeightsMismatch("mini", [f"layer.{n}" for n in range(20)], []))
    assert "Missing (20)" in text
    assert "12 more" in text
    assert "Unexpected (0): none" in text


def test_not_finite_has_advice_even_when_none_is_given():
    assert "Try --dtype float32." in str(NotFinite("decoding"))


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_an_error_survives_another_process(kind):
    """Job queues and worker processes pickle what they catch."""
    error, _ = EXAMPLES[kind]
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
