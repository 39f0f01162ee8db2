"""The work of one site: what it keeps of its images, and its local epochs in a round."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xray_helpers.federated.averaging import Update, Weights
from xray_helpers.federated.rounds import Plan
from xray_helpers.models.head import (
    build_batches,
    build_head,
    class_weights,
    predict_head,
    prepare_tensorflow,
    reset_head,
)
from xray_helpers.settings import Classes, InputError, Settings, set_classes
from xray_helpers.study.files import atomic_write, read_json, write_json
from xray_helpers.study.seeds import derive_seed

if TYPE_CHECKING:
    import keras
FEATURES, SITE = "features.npz", "site.json"
_heads: dict[str, tuple[Any, list]] = {}


class Site(NamedTuple):
    """What a site trains on.

    Attributes
    ----------
    name : str
    backbone : str
        As `Plan.backbone`.
    train, validation : tuple of ndarray
        Features (n, d), float32, and what is learnt of them (n,), int.
    """

    name: str
    backbone: str
    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]

    def write(self, folder: Path) -> "Site":
        """Write ``site.json`` and ``features.npz``, which never leave the site."""
        with atomic_write(folder / FEATURES) as partial:
            np.savez(
                partial,
                **{f"train_{key}": value for key, value in zip("xy", self.train, strict=True)},
                **{f"validation_{key}": value for key, value in zip("xy", self.validation, strict=True)},
            )
        counts = {"images": len(self.train[1]), "validation_images": len(self.validation[1])}
        write_json(folder / SITE, {"name": self.name, "backbone": self.backbone, **counts})
        return self

    @classmethod
    def read(cls, folder: Path) -> "Site":
        """Read what `write` wrote.

        Raises
        ------
        InputError
            When there is no site in the folder.
        """
        if not (folder / SITE).exists():
            raise InputError(f"{folder} holds no site: prepare one with `python -m xray_helpers site`.")
        about = read_json(folder / SITE)
        with np.load(folder / FEATURES, allow_pickle=False) as stored:
            parts = [(stored[f"{part}_x"], stored[f"{part}_y"]) for part in ("train", "validation")]
        return cls(about["name"], about["backbone"], *parts)


def plan_settings(plan: Plan) -> Settings:
    """Return the settings of a plan, and make its classes those of this process."""
    classes = {name: tuple(v) if isinstance(v, list) else v for name, v in plan.classes.items()}
    set_classes(Classes(**classes))
    return Settings(**plan.settings)


def initial_weights(plan: Plan) -> Weights:
    """Return the weights that the first round starts from: those of the plan's seed."""
    return build_head(plan.features, plan_settings(plan).model_copy(update={"seed": plan.seed})).get_weights()


def train_round(site: Site, weights: Weights, plan: Plan, number: int) -> Update:
    """Train the head for some epochs from given weights.

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
    head = _open_head(plan, settings, weights)
    loss = _loss(head, site.validation, settings)
    batches, _ = build_batches(([site.train[0]], site.train[1]), None, settings)
    head.fit(batches, epochs=plan.local_epochs, verbose=0)
    trained = head.get_weights()
    if not all(np.isfinite(array).all() for array in trained):
        raise InputError("training diverged: its weights are not finite numbers")
    return Update(trained, len(site.train[1]), len(site.validation[1]), loss)


def evaluate_weights(site: Site, weights: Weights, plan: Plan) -> Update:
    """Return the validation loss of given weights at a site."""
    settings = plan_settings(plan)
    prepare_tensorflow(settings)
    loss = _loss(_open_head(plan, settings, weights), site.validation, settings)
    return Update(None, len(site.train[1]), len(site.validation[1]), loss)


def build_trained(plan: Plan, weights: Weights) -> "keras.Model":
    """Return the head with given weights."""
    head = build_head(plan.features, plan_settings(plan))
    head.set_weights(weights)
    return head


def _open_head(plan: Plan, settings: Settings, weights: Weights) -> "keras.Model":
    """Return the plan's head, in the state of the first step of these settings' seed, with given weights.

    It is built once per process, which saves Keras a second or two each round.
    """
    if plan.key not in _heads:
        head, start = build_head(plan.features, settings), []
        _heads[plan.key] = _add_proximal(head, start, plan.proximal) if plan.proximal else head, start
    head, start = _heads[plan.key]
    reset_head(head, settings)
    for number, layer in enumerate(head.layers):  # Keras draws them where Flower's heartbeat draws too
        if getattr(layer, "seed_generator", None) is not None:
            state = [derive_seed(settings.seed, "dropout", number), 0]
            layer.seed_generator.state.assign(np.array(state, np.uint32))
    head.set_weights(weights)
    for origin, value in zip(start, head.trainable_variables, strict=False):
        origin.assign(value)
    return head


def _add_proximal(head: "keras.Model", start: list["keras.Variable"], strength: float) -> "keras.Model":
    """Return the head with strength / 2 times the squared distance to `start` added to its loss.

    FedProx of Li et al. (MLSys 2020), which keeps sites that differ from drifting apart. `start` is filled
    with variables that hold the weights of the round's begin.
    """
    import keras

    class ProximalHead(keras.Sequential):
        """A head that is drawn to the weights it started from."""

        def compute_loss(self, *args: object, **options: object) -> "keras.KerasTensor":
            """Return the loss with the proximal term."""
            pairs = zip(self.trainable_variables, start, strict=True)
            distance = sum(keras.ops.sum((value - origin) ** 2) for value, origin in pairs)
            return super().compute_loss(*args, **options) + strength / 2 * distance

    drawn = ProximalHead([keras.Input(head.input_shape[1:]), *head.layers])
    drawn.compile_from_config(head.get_compile_config())
    start += [keras.Variable(value, trainable=False) for value in drawn.trainable_variables]
    return drawn


def _loss(head: "keras.Model", part: tuple[np.ndarray, np.ndarray], settings: Settings) -> float:
    """Return the mean cross-entropy on a part, weighted as training is."""
    x, y = part
    found = predict_head(head, x)
    chosen = np.where(y == 1, found, 1 - found) if found.ndim == 1 else found[np.arange(len(y)), y]
    weights = class_weights(y, settings)
    each = -np.log(np.clip(chosen, 1e-7, 1))
    return float(np.average(each, weights=None if weights is None else weights[y]))
