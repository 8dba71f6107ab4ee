import pytest


@pytest.fixture
def recipe():
    """A recipe with everything that has ever been hard to write into a file."""
    return {
        "triptych": 1,
        "request": {
            "model": "toy",
            "prompt": 'a "fox", ein Fuchs: 狐 🦊\nNegative prompt: \\ ümlaut, {x}',
            "negative_prompt": "blur, noise:\tugly",
            "width": 40,
            "height": 24,
            "count": 1,
            "seed": 4294967295,
            "steps": 20,
            "guidance_scale": 3.5,
            "sampler": "dpmpp_2m",
            "spacing": "karras",
            "options": {"batch_size": 1},
        },
        "inputs": {},
        "model": {"name": "toy", "weights": {"toy.safetensors": "0123456789abcdef" * 4}},
        "versions": {"triptych": "0.1.0", "torch": "2.13.0"},
        "profile": "native",
        "device": "cpu",
    }
