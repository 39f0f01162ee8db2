"""The epochs of a fine-tuning on disk, from which it goes on after it was killed."""

from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from xray_helpers.study.cache import cache_folder
from xray_helpers.study.files import atomic_write, read_json, write_json

if TYPE_CHECKING:
    import keras


def find_best(rows: list[dict]) -> int:
    """Return which epoch has the lowest validation loss; the first, if several have."""
    return int(np.argmin([row["val_loss"] for row in rows]))


class Checkpoints:
    """The epochs of one run on disk: their rows, the state after the last one, and the best weights.

    The best weights are kept in memory too, in case the cache is cleared.
    """

    def __init__(self, key: str) -> None:
        self.stem = cache_folder() / f"finetuning-{key}"
        self.rows: list[dict] = read_json(self._state, default=[])
        self.best: list[np.ndarray] = []

    @property
    def _state(self) -> Path:
        return self.stem.with_suffix(".json")

    def _arrays(self, name: str, epoch: int) -> Path:
        return self.stem.with_name(f"{self.stem.name}-{name}-{epoch:03d}.npz")

    def load(self, copy: "keras.Model") -> None:
        """Give a network and its optimizer their state after the last epoch; without one, forget the rows."""
        copy.optimizer.build(copy.trainable_variables)
        try:
            self.best = _read(self._arrays("best", find_best(self.rows)))
            last, count = _read(self._arrays("last", len(self.rows) - 1)), len(copy.weights)
        except (ValueError, OSError, KeyError, BadZipFile):  # missing or damaged
            self.rows = []
            return
        copy.set_weights(last[:count])
        copy.optimizer.set_weights(last[count:])

    def save(self, copy: "keras.Model", rows: list[dict], averaged: list[np.ndarray]) -> None:
        """Write the state, then the rows; then delete what is of neither the last nor the best epoch."""
        last, best = len(rows) - 1, find_best(rows)
        optimizer = [np.asarray(variable) for variable in copy.optimizer.variables]
        _write(self._arrays("last", last), [*copy.get_weights(), *optimizer])
        if best == last:
            self.best = averaged
            _write(self._arrays("best", best), averaged)
        write_json(self._state, rows)
        kept = {self._arrays("last", last), self._arrays("best", best)}
        for path in self.stem.parent.glob(f"{self.stem.name}-*.npz"):
            if path not in kept:
                path.unlink(missing_ok=True)


def _write(path: Path, arrays: list[np.ndarray]) -> None:
    with atomic_write(path) as partial, open(partial, "wb") as handle:
        np.savez(handle, *arrays)


def _read(path: Path) -> list[np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return [stored[f"arr_{number}"] for number in range(len(stored.files))]
