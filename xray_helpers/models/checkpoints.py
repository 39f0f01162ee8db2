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
    """The epochs of one run on disk: their rows, and the networks after the last and after the best one.

    The best weights are kept in memory too, in case the cache is cleared.
    """

    def __init__(self, key: str) -> None:
        self.stem = cache_folder() / f"finetuning-{key}"
        self.rows: list[dict] = read_json(self._state, default=[])
        self.best: list[np.ndarray] = []

    @property
    def _state(self) -> Path:
        return self.stem.with_suffix(".json")

    def _network(self, epoch: int) -> Path:
        return self.stem.with_name(f"{self.stem.name}-{epoch:03d}.keras")

    def load(self) -> "keras.Model | None":
        """Return the network after the last epoch, with its optimizer, or None, and then no rows either."""
        import keras

        try:
            last = keras.saving.load_model(self._network(len(self.rows) - 1))
            best = keras.saving.load_model(self._network(find_best(self.rows)))
            best.optimizer.finalize_variable_values(best.trainable_variables)  # the averages
            self.best = best.get_weights()
            return last
        except (ValueError, OSError, KeyError, BadZipFile):  # missing or damaged
            self.rows = []
            return None

    def save(self, copy: "keras.Model", rows: list[dict], averaged: list[np.ndarray]) -> None:
        """Write the network, then the rows; then delete networks that are neither the last nor the best."""
        with atomic_write(self._network(len(rows) - 1)) as partial:
            copy.save(partial)
        write_json(self._state, rows)
        best = find_best(rows)
        if best == len(rows) - 1:
            self.best = averaged
        kept = {self._network(len(rows) - 1), self._network(best)}
        for path in self.stem.parent.glob(f"{self.stem.name}-*.keras"):
            if path not in kept:
                path.unlink(missing_ok=True)
