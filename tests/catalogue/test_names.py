"""What people type, and what they mean."""

import pytest

from triptych.catalogue import found, shipped
from triptych.errors import UnknownName

MEANT = {
    "dall-e-3": "dall-e-3",
    "dalle3": "dall-e-3",
    "DALL·E 3": "dall-e-3",
    "Dall-E": "dall-e-3",
    "Nano Banana Pro": "gemini-3-pro-image",
    "nano-banana-pro": "gemini-3-pro-image",
    "nano_banana": "gemini-nano-banana-2.1",
    "nano banana 2": "gemini-3.1-flash-image",
    "sd3": "sd3-medium",
    "sd-3.5 large": "sd3.5-large",
    "SD 1.5": "sd15",
    "stable diffusion xl": "sdxl",
    "sora": "sora-2",
    "Sora 2 Pro": "sora-2-pro",
    "veo 3": "veo-3.0-generate-001",
    "Veo 3.1": "veo-3.1-generate-001",
    "veo 2": "veo-2.0-generate-001",
    "imagen 4": "imagen-4.0-generate-001",
    "Imagen 4 Ultra": "imagen-4.0-ultra-generate-001",
    "flux pro": "flux-pro",
    "flux 1.1 pro": "flux-pro-1.1",
    "flux kontext": "flux-kontext-pro",
    "FLUX.1 [schnell]": "flux1-schnell",
    "FLUX.2 [pro]": "flux-2-pro",
    "lyria": "lyria-3.5",
    "Lyria 2": "lyria-002",
    "Suno": "suno",
    "midjourney": "midjourney",
    "MJ": "midjourney",
    "stable audio": "stable-audio-2.5",
    "music_v2_5": "eleven-music-v2.5",
    "fal-ai/flux/dev": "fal:fal-ai/flux/dev",
    "flux dev": "flux1-dev",
    "wan": "wan2.1",
}


@pytest.mark.parametrize(("typed", "name"), MEANT.items())
def test_what_people_type(typed, name):
    assert found(typed).name == name


@pytest.mark.parametrize("name", shipped())
def test_a_name_is_itself_however_it_is_written(name):
    entry = shipped()[name]
    assert found(name) is entry
    assert found(name.upper().replace("-", " ")) is entry
    for alias in entry.aliases:
        assert found(alias) is entry


def test_a_name_goes_before_an_id():
    assert found("nano banana").name == "gemini-nano-banana-2.1"  # the title of an older one, too
    assert found("sd3.5-large").provider == "local"
    assert shipped()["stability-sd3.5-large"].id == "sd3.5-large"


def test_an_unknown_name_tells_the_nearest():
    with pytest.raises(UnknownName, match=r"Did you mean 'gpt-image-2.6-flare'") as raised:
        found("gpt-image-2.6-flair")
    assert len(raised.value.allowed) == 8
    assert "triptych models" in raised.value.__notes__[0]
    with pytest.raises(UnknownName):
        found("")
