"""Files written whole or not at all: a temporary name in the same folder, fsync, rename."""

import errno
import os
import secrets
from contextlib import suppress
from itertools import count
from pathlib import Path

from triptych.errors import FileProblem

__all__ = ["check_folder", "free", "read", "write"]

ADVICE = {
    errno.ENOSPC: "the disk is full; make room or name another place",
    errno.EDQUOT: "your quota is used up; make room or name another place",
    errno.EFBIG: "the file is larger than is allowed here; name another place",
    errno.EACCES: "you may not write there; name another place",
    errno.EPERM: "you may not write there; name another place",
    errno.EROFS: "that place is read-only; name another one",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOENT: "the folder does not exist; make it first",
}


def write(path: Path, data: bytes, *, replace: bool = True, sync: bool = True) -> Path:
    """Writes `data` and returns where: `path`, or the next free numbered name where it is taken and not to be replaced.

    Whatever happens, no half-written file stays. sync: whether the data must be on the disk before the name is.
    Raises FileProblem.
    """
    temporary = path.parent / f".triptych-{secrets.token_hex(6)}.part"
    try:
        _write(temporary, data, sync)
        return _rename(temporary, path, replace)
    except OSError as problem:
        raise FileProblem(f"cannot write {path}: {_reason(problem)}.") from problem
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def read(path: Path) -> bytes:
    """The whole file. Raises FileProblem."""
    try:
        return path.read_bytes()
    except OSError as problem:
        raise FileProblem(f"cannot read {path}: {problem.strerror or problem}.") from problem


def free(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that does not exist yet."""
    names = (path if number == 1 else path.with_stem(f"{path.stem}-{number}") for number in count(1))
    return next(name for name in names if not os.path.lexists(name))


def check_folder(folder: Path) -> None:
    """Tries to write into `folder` and leaves no trace. Raises FileProblem that says what to do."""
    if not folder.exists():
        raise FileProblem(f"the folder {folder} does not exist. Make it first: mkdir -p '{folder}'")
    if not folder.is_dir():
        raise FileProblem(f"{folder} is a file, not a folder. Name another place with -o.")
    probe = folder / f".triptych-{secrets.token_hex(6)}.part"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as problem:
        raise FileProblem(f"cannot write into {folder}: {_reason(problem)}.") from problem


def _write(path: Path, data: bytes, sync: bool) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def _rename(temporary: Path, path: Path, replace: bool) -> Path:
    if replace:
        temporary.replace(path)
        return path
    while True:
        name = free(path)
        try:
            os.link(temporary, name)  # unlike rename it fails where another process was faster
        except FileExistsError:
            continue
        except OSError:  # a file system without hard links
            temporary.replace(name)
        return name


def _reason(problem: OSError) -> str:
    return ADVICE.get(problem.errno or 0, problem.strerror or str(problem))
