"""The loss curve: a CSV that grows with the run, and a picture of it."""

from pathlib import Path
from typing import final

__all__ = ["Curve"]


@final
class Curve:
    """Losses by step, kept in a file from which a resumed run goes on."""

    def __init__(self, path: Path, first: int) -> None:
        """first: the step after which the run goes on; later lines of an interrupted run are dropped."""
        lines = path.read_text().splitlines() if path.exists() else []
        self._losses = [float(line.split(",")[1]) for line in lines[:first]]
        self._file = path.open("w")
        self._file.writelines(f"{step},{loss:.6f}\n" for step, loss in enumerate(self._losses, 1))

    def add(self, step: int, loss: float) -> None:
        """One more step's loss."""
        self._losses.append(loss)
        self._file.write(f"{step},{loss:.6f}\n")
        if step % 20 == 0:
            self._file.flush()

    def close(self) -> None:
        """Ends the file."""
        self._file.close()

    def write(self, path: Path) -> None:
        """Draws the curve: every step, and its mean over 1 % of the run."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        window = max(1, len(self._losses) // 100)
        means = [sum(self._losses[i : i + window]) / window for i in range(0, len(self._losses) - window + 1, window)]
        figure, axes = plt.subplots(figsize=(8, 4))
        axes.plot(range(1, len(self._losses) + 1), self._losses, color="0.8", linewidth=0.5)
        axes.plot([(i + 0.5) * window for i in range(len(means))], means, color="tab:blue")
        axes.set(xlabel="step", ylabel="loss", yscale="log")
        figure.tight_layout()
        figure.savefig(path)
        plt.close(figure)
