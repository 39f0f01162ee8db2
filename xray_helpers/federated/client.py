"""The work of one site: what it keeps of its images, and its local epochs in a round."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xray_helpers.federated.averaging import Update, Weights
from xray_helpers.federated.rounds import Plan
from xray_helpers.models.cutting import build_optimizer
from xray_helpers.models.graphs import list_layers
from xray_helpers.models.head import (
    build_batches,
    build_head,
    choose_loss,
    class_weights,
    join_model,
    predict_head,
    prepare_tensorflow,
)
from xray_helpers.settings import SPLITS, Classes, InputError, Settings, set_classes
from xray_helpers.study.files import atomic_write, read_json, write_json
from xray_helpers.study.seeds import derive_seed

if TYPE_CHECKING:
    import keras
FEATURES, SITE, UPPER = "features.npz", "site.json", "upper.keras"
_XY = tuple(enumerate("xy"))  # in FEATURES: of each part the features, and what is learnt of them
_VALUES = 2**22  # of features that are predicted at once
_heads: dict[str, tuple[Any, list]] = {}


class Site(NamedTuple):
    """What a site trains on.

    Attributes
    ----------
    name : str
    backbone : str
        As `Plan.backbone`.
    train, validation : tuple of ndarray
        Features (n, d), float32, and what is learnt of them (n,), int. Where upper layers are trained, d is
        that of the maps where the backbone is cut, and they are float16.
    upper : Path, optional
        The upper part of the backbone, where its layers are trained.
    test : tuple of ndarray, optional
        As train; no round reads it.
    """

    name: str
    backbone: str
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    upper: Path | None = None
    test: tuple[np.ndarray, np.ndarray] | None = None

    def write(self, folder: Path) -> "Site":
        """Write ``features.npz``, which never leaves the site, ``upper.keras`` and, last, ``site.json``."""
        parts = {split: part for split in SPLITS if (part := getattr(self, split)) is not None}
        with atomic_write(folder / FEATURES) as partial:
            np.savez(
                partial, **{f"{split}_{key}": part[at] for split, part in parts.items() for at, key in _XY}
            )
        counts = {"images": len(self.train[1]), "validation_images": len(self.validation[1])}
        if self.upper is None:
            (folder / UPPER).unlink(missing_ok=True)
        elif self.upper != folder / UPPER:
            with atomic_write(folder / UPPER) as partial:
                shutil.copy(self.upper, partial)
        write_json(folder / SITE, {"name": self.name, "backbone": self.backbone, **counts})
        return self

    @classmethod
    def read(cls, folder: Path, *, test: bool = False) -> "Site":
        """Read what `write` wrote, without the test part unless it is asked for.

        Raises
        ------
        InputError
            When there is no site in the folder.
        """
        if not all((folder / name).exists() for name in (SITE, FEATURES)):
            raise InputError(f"{folder} holds no site: prepare one with `python -m xray_helpers site`.")
        about = read_json(folder / SITE)
        with np.load(folder / FEATURES, allow_pickle=False) as stored:
            kept = [split for split in SPLITS if f"{split}_x" in stored and (test or split != "test")]
            parts = {split: tuple(stored[f"{split}_{key}"] for _, key in _XY) for split in kept}
        upper = folder / UPPER
        return cls(about["name"], about["backbone"], **parts, upper=upper if upper.exists() else None)


def plan_settings(plan: Plan) -> Settings:
    """Return the settings of a plan, and make its classes those of this process."""
    classes = {name: tuple(v) if isinstance(v, list) else v for name, v in plan.classes.items()}
    set_classes(Classes(**classes))
    return Settings(**plan.settings)


def build_network(plan: Plan, settings: Settings, upper: Path | None = None) -> "keras.Model":
    """Build and compile what is trained: the head, or the upper part of the backbone with the head on it.

    Parameters
    ----------
    plan : Plan
    settings : Settings
        With the seed of the head's initial weights.
    upper : Path, optional
        ``upper.keras`` of a plan or site that trains upper layers.
    """
    import keras

    if not plan.trained:
        return build_head(plan.features, settings)
    if upper is None:
        raise InputError(f"There is no {UPPER}, whose layers the plan trains: prepare the site again.")
    rest = keras.models.load_model(upper, compile=False)
    layers = [layer for layer in list_layers(rest) if layer.trainable_variables]
    network = join_model(rest, build_head(rest.output_shape[-1], settings))
    network.compile(build_optimizer(layers, settings), loss=choose_loss(), metrics=["accuracy"])
    return network


def initial_weights(plan: Plan, upper: Path | None = None) -> Weights:
    """Return the weights that the first round starts from.

    Those of the head are of the plan's seed; those of upper layers are the pretrained ones.
    """
    settings = plan_settings(plan).model_copy(update={"seed": plan.seed})
    return trained_weights(build_network(plan, settings, upper))


def trained_weights(network: "keras.Model") -> Weights:
    """Return what is trained of a network, and thus travels."""
    return [np.array(variable.numpy()) for variable in network.trainable_variables]


def set_weights(network: "keras.Model", weights: Weights) -> "keras.Model":
    """Give a network what `trained_weights` returned."""
    for variable, value in zip(network.trainable_variables, weights, strict=True):
        variable.assign(value)
    return network


def train_round(site: Site, weights: Weights, plan: Plan, number: int) -> Update:
    """Train the head, and upper layers where the plan says so, for some epochs from given weights.

    The seed of dropout and of the order of images follows from the plan's seed, the site's name and the
    round, so that the same round gives the same weights wherever it runs.

    Raises
    ------
    InputError
        When the weights that come out are not finite: nothing is sent then.
    """
    seed = derive_seed(plan.seed, "federated", site.name, number)
    settings = plan_settings(plan).model_copy(update={"seed": seed})
    prepare_tensorflow(settings)
    head = _open_head(plan, settings, weights, site.upper)
    loss = _loss(head, site.validation, settings)
    batches, _ = build_batches(([site.train[0]], site.train[1]), None, settings)
    # batches come in an order of their own; Keras would draw another where Flower's heartbeat draws too
    head.fit(batches, epochs=plan.local_epochs, shuffle=False, verbose=0)
    trained = trained_weights(head)
    if not all(np.isfinite(array).all() for array in trained):
        raise InputError("training diverged: its weights are not finite numbers")
    return Update(trained, len(site.train[1]), len(site.validation[1]), loss)


def evaluate_weights(site: Site, weights: Weights, plan: Plan) -> Update:
    """Return the validation loss of given weights at a site."""
    settings = plan_settings(plan)
    prepare_tensorflow(settings)
    loss = _loss(_open_head(plan, settings, weights, site.upper), site.validation, settings)
    return Update(None, len(site.train[1]), len(site.validation[1]), loss)


def build_trained(plan: Plan, weights: Weights, upper: Path | None = None) -> "keras.Model":
    """Return the head, or the upper part with its head, with given weights."""
    return set_weights(build_network(plan, plan_settings(plan), upper), weights)


def train_alone(
    plan: Plan, train: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray], upper: Path
) -> "keras.Model":
    """Return upper layers and head trained in one place, from where the rounds start, and as long as they.

    The weights of the epoch of lowest validation loss are kept, that before the first included.
    """
    settings = plan_settings(plan)
    network = build_network(plan, settings, upper)
    batches, _ = build_batches(([train[0]], train[1]), None, settings)
    best, lowest = trained_weights(network), _loss(network, validation, settings)
    for _ in range(plan.rounds * plan.local_epochs):
        network.fit(batches, shuffle=False, verbose=0)
        loss = _loss(network, validation, settings)
        if loss < lowest:
            best, lowest = trained_weights(network), loss
    return set_weights(network, best)


def predict(network: "keras.Model", features: np.ndarray) -> np.ndarray:
    """Return what `head.predict_head` does, in blocks that fit into memory."""
    return predict_head(network, features, max(16, _VALUES // features.shape[1]))


def _open_head(plan: Plan, settings: Settings, weights: Weights, upper: Path | None) -> "keras.Model":
    """Return what the plan trains, in the state of the first step of these settings' seed.

    It is built once per process, which saves Keras a second or two each round.
    """
    if plan.key not in _heads:
        head, start = build_network(plan, settings, upper), []
        _heads[plan.key] = _add_proximal(head, start, plan.proximal) if plan.proximal else head, start
    head, start = _heads[plan.key]
    for optimizer in getattr(head.optimizer, "optimizers", [head.optimizer]):
        rate = float(optimizer.learning_rate)
        for variable in optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        optimizer.learning_rate = rate
    for number, layer in enumerate(list_layers(head)):  # nor are these left to be drawn by Keras
        if getattr(layer, "seed_generator", None) is not None:
            state = [derive_seed(settings.seed, "dropout", number), 0]
            layer.seed_generator.state.assign(np.array(state, np.uint32))
    set_weights(head, weights)
    for origin, value in zip(start, head.trainable_variables, strict=False):
        origin.assign(value)
    return head


def _add_proximal(head: "keras.Model", start: list["keras.Variable"], strength: float) -> "keras.Model":
    """Return the head with strength / 2 times the squared distance to `start` added to its loss.

    FedProx of Li et al. (MLSys 2020), which keeps sites that differ from drifting apart. `start` is filled
    with variables that hold the weights of the round's begin.
    """
    import keras

    class ProximalHead(keras.Model):
        """A head that is drawn to the weights it started from."""

        def compute_loss(self, *args: object, **options: object) -> "keras.KerasTensor":
            """Return the loss with the proximal term."""
            pairs = zip(self.trainable_variables, start, strict=True)
            distance = sum(keras.ops.sum((value - origin) ** 2) for value, origin in pairs)
            return super().compute_loss(*args, **options) + strength / 2 * distance

    steps = head.steps_per_execution
    drawn = ProximalHead(head.inputs, head.outputs)
    drawn.compile(head.optimizer, loss=choose_loss(), metrics=["accuracy"], steps_per_execution=steps)
    start += [keras.Variable(value, trainable=False) for value in drawn.trainable_variables]
    return drawn


def _loss(head: "keras.Model", part: tuple[np.ndarray, np.ndarray], settings: Settings) -> float:
    """Return the mean cross-entropy on a part, weighted as training is."""
    x, y = part
    found = predict(head, x)
    chosen = np.where(y == 1, found, 1 - found) if found.ndim == 1 else found[np.arange(len(y)), y]
    weights = class_weights(y, settings)
    each = -np.log(np.clip(chosen, 1e-7, 1))
    return float(np.average(each, weights=None if weights is None else weights[y]))
