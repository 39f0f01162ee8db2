"""Files of weights, made for tests."""

from pathlib import Path

import h5py
import numpy as np


def write_numbers(path: Path, count: int, seed: int = 0) -> Path:
    """Write an HDF5 file with `count` parameters, and an optimizer's state, which does not count."""
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "layers/one/vars/0", data=np.random.default_rng(seed).normal(size=count).astype("float32")
        )
        file.create_dataset("optimizer/vars/0", data=np.zeros(5, "float32"))
    return path


def write_radimagenet(network, path: Path) -> None:
    """Write a whole model as RadImageNet's files hold it: model_weights/<layer>/<layer>/kernel:0."""
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [layer.name.encode() for layer in network.layers]
        group.attrs["backend"], group.attrs["keras_version"] = b"tensorflow", b"2.3.1"
        for layer in network.layers:
            own = group.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            own.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.get_weights(), strict=True):
                own.create_dataset(name, data=weight)
