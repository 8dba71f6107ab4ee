"""A pulse: waves that are at their crest at every beat, and a rate that words give."""

import torch

from triptych.engine.pulse import WAVES, Pulse, waves


def test_waves_are_at_their_crest_whenever_the_time_has_come():
    beats = torch.arange(5) / 2.5
    found = waves(torch.tensor([2.5]), beats)
    assert found.shape == (1, WAVES, 5)
    torch.testing.assert_close(found[0, ::2], torch.ones(3, 5), atol=1e-4, rtol=0)
    between = waves(torch.tensor([2.5]), beats + 0.2)[0, ::2]
    torch.testing.assert_close(between[:, 0], torch.tensor([-1.0, 1, 1]), atol=1e-4, rtol=0)


def test_where_nothing_recurs_there_are_no_waves():
    found = waves(torch.tensor([0.0, 1.0]), torch.linspace(0, 0.9, 10))
    assert not found[0].any()
    assert found[1].abs().amax(1).min() > 0.5


def test_what_pads_a_text_has_no_say():
    torch.manual_seed(0)
    pulse, tokens = Pulse(8, 2, 16), torch.randn(1, 6, 8)
    mask = torch.tensor([[True] * 4 + [False] * 2])
    other = torch.where(mask[..., None], tokens, 100.0)
    torch.testing.assert_close(pulse(tokens, mask), pulse(other, mask))
    rate, odds = pulse(tokens, mask)
    expected = torch.exp2(rate) if odds > 0 else torch.zeros(1)
    torch.testing.assert_close(pulse.rate(tokens, mask), expected)
