"""A backbone cut where fine-tuning begins: a frozen lower part, and upper layers to train on its maps."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from xray_helpers.models.finetuning import trained_layers
from xray_helpers.models.graphs import list_layers, nested_networks, open_model
from xray_helpers.models.optimization import group_layers, rates_by_layer
from xray_helpers.settings import InputError, Settings

if TYPE_CHECKING:
    import keras
UPPER_SHARE = 0.2  # of the layers, where the study would train the whole network


class Cut(NamedTuple):
    """A backbone in two parts, one after the other the whole.

    Attributes
    ----------
    lower : keras.Model
        Grey pixels (n, height, width, 1), 0-255, to the maps at the cut, flat: (n, rows x columns x d).
    upper : keras.Model
        From these to the pooled features (n, d).
    at : str
        The layer after which it is cut.
    trained : tuple of str
        The layers of the upper part that are trained.
    """

    lower: "keras.Model"
    upper: "keras.Model"
    at: str
    trained: tuple[str, ...]


def cut_backbone(extractor: "keras.Model", start: float | str) -> Cut:
    """Cut a backbone at the last tensor, before the first trained layer, on which all that follows depends.

    The layers of the upper part that are to learn are marked as trainable, and no others: batch normalization
    never is (`finetuning.trained_layers`), and stays in inference mode. A saved upper part keeps the marks.

    Parameters
    ----------
    extractor : keras.Model
        Result of `Backbone.build`.
    start : float or str
        As for `finetuning.trained_layers`; 1, the whole network, becomes `UPPER_SHARE`.

    Raises
    ------
    InputError
        When the backbone is one layer, as KerasHub's are, or no layer is left to train.
    """
    import keras

    if nested_networks(extractor) or len(list(list_layers(extractor))) > len(extractor.layers):
        raise InputError(
            f"{extractor.name} is a network that is held as one layer and cannot be cut: its upper layers "
            "cannot be trained at several sites; run the study with -p recipe=frozen, which trains the head."
        )
    names = trained_layers(extractor, UPPER_SHARE if start == 1 else start)
    if not names:
        raise InputError(f"fine_tune_from = {start} leaves no layer of {extractor.name} to train.")
    outputs = open_model(extractor).outputs
    order = list(outputs)
    for at in reversed(order[: order.index(names[0])]):
        try:
            rest = keras.Model(outputs[at], extractor.output)
        except ValueError:  # what follows depends on another tensor too, past this one
            continue
        flat = keras.layers.Flatten(name="flat")(outputs[at])
        pixels = keras.Input((flat.shape[-1],), name="maps")
        maps = keras.layers.Reshape(outputs[at].shape[1:], name="laid_out")(pixels)
        upper = keras.Model(pixels, rest(maps), name=extractor.name)
        for layer in list_layers(extractor):
            layer.trainable = layer.name in names
        return Cut(keras.Model(extractor.input, flat), upper, at, tuple(names))
    raise InputError(f"{extractor.name} cannot be cut below {names[0]}: give another fine_tune_from.")


def build_optimizer(
    layers: Sequence["keras.layers.Layer"], settings: Settings
) -> "keras.optimizers.Optimizer":
    """Return Adam with constant rates: of fine-tuning, by groups of layers, and ``learning_rate`` for others.

    Parameters
    ----------
    layers : sequence of keras.layers.Layer
        The trained layers of the backbone, lowest first.
    settings : Settings
    """
    import keras

    if not hasattr(keras.optimizers, "MultiOptimizer"):
        raise InputError("Training upper layers at several sites needs Keras 3.15: pip install -U keras.")
    rate, adam = settings.fine_tune_learning_rate, keras.optimizers.Adam
    groups = [
        (group, adam(rate * settings.layer_decay**depth)) for depth, group in enumerate(group_layers(layers))
    ]
    return rates_by_layer(adam(settings.learning_rate), groups)
