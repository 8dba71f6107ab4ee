"""The engine knows axes, rows and rates, and no medium: its code has no word for one."""

import io
import re
import tokenize
from pathlib import Path

import pytest

import triptych.engine

FILES = sorted(Path(triptych.engine.__file__).parent.rglob("*.py"))
MEDIUM = re.compile(r"image|video|audio")


def words(path):
    """Names, and strings that are no docstrings: every one-line string that stands in an expression."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        docstring = token.string.startswith(('"""', 'r"""'))
        if token.type == tokenize.NAME or (token.type == tokenize.STRING and not docstring):
            yield token.string


@pytest.mark.parametrize("path", FILES, ids=[str(path.name) for path in FILES])
def test_no_word_for_a_medium_in_code(path):
    assert not [word for word in words(path) if MEDIUM.search(word)]
