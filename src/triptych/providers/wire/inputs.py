"""What may be sent along: files of the types and sizes that a vendor takes. Nothing is converted or cut."""

from collections.abc import Iterator

from triptych.errors import FileProblem, InvalidField
from triptych.types import Artifact, Request

__all__ = ["PICTURES", "check_bytes", "check_type", "named", "size"]

PICTURES = ("image/png", "image/jpeg", "image/webp")


def named(request: Request, name: str) -> Iterator[tuple[str, Artifact]]:
    """The inputs name, name_2, name_3, ... that there are, in this order."""
    pattern = [name, *(f"{name}_{number}" for number in range(2, 100))]
    return ((one, request.inputs[one]) for one in pattern if one in request.inputs)


def check_type(name: str, artifact: Artifact, allowed: tuple[str, ...]) -> None:
    """Raises InvalidField where the file is of another type than these."""
    if artifact.mime not in allowed:
        raise InvalidField(name, f"a file of type {artifact.mime}", " or ".join(allowed), "Convert it first.")


def check_bytes(name: str, artifact: Artifact, most: int) -> None:
    """Raises InvalidField where the file has more bytes."""
    if len(artifact.data) > most:
        raise InvalidField(name, f"a file of {len(artifact.data)} bytes", f"at most {most} bytes", "Make it smaller.")


def size(name: str, artifact: Artifact) -> tuple[int, int]:
    """Width and height of a picture in pixels. Raises InvalidField where it is none."""
    from triptych.media import image

    try:
        return image.opened(artifact.data, name).size
    except FileProblem as problem:
        raise InvalidField(
            name, f"a file of type {artifact.mime}", "a picture that can be read", str(problem)
        ) from None
