"""Models that hold a whole network as one layer: opened, so that one can look and train inside.

A saved model keeps such a network as it is; its layers are laid out only in memory. The patches of a
transformer then pass through a layer in which they lie as in the picture, so that Grad-CAM finds a place to
look, as in a convnet.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xray_helpers.models.preprocessing import POOLED, prepare_pixels

if TYPE_CHECKING:
    import keras
GRID = "patch_grid"
Call = Callable[..., Any]


class Opened(NamedTuple):
    """A model layer by layer, the networks inside opened.

    Attributes
    ----------
    input : KerasTensor
    outputs : dict
        Name of each layer and operation to its output, in the order of computation.
    spatial : list of str
        Names of those whose output is spatial (n, rows, columns, d), and which do not pool.
    features : KerasTensor
        What the last layer of the model receives.
    """

    input: "keras.KerasTensor"
    outputs: dict[str, "keras.KerasTensor"]
    spatial: list[str]
    features: "keras.KerasTensor"


def nested_networks(model: "keras.Model") -> list["keras.Model"]:
    """Return the layers of a model that are networks themselves."""
    import keras

    return [layer for layer in model.layers if isinstance(layer, keras.Model)]


def open_model(model: "keras.Model") -> Opened:
    """Return the outputs of all layers of a model, for an input of its own if networks inside are opened."""
    import keras

    if not nested_networks(model):
        # not only layers: the last sum of a ConvNeXt is an operation
        outputs = {one.name: one.output for one in model.operations}
        spatial = [one.name for one in model.operations[1:] if _is_spatial(one, one.output)]
        return Opened(model.input, outputs, spatial, model.layers[-1].input)
    inputs, outputs, received, spatial = keras.Input(model.input_shape[1:]), {}, {}, []

    def call(layer: "keras.layers.Layer", *args: Any, **kwargs: Any) -> Any:
        received[layer.name] = args[0]
        result = layer(*args, **kwargs)
        outputs[layer.name] = keras.tree.flatten(result)[0]
        if _is_spatial(layer, outputs[layer.name]):
            spatial.append(layer.name)
        return result

    _run(model, inputs, call)
    return Opened(inputs, outputs, spatial, received[model.layers[-1].name])


def _is_spatial(layer: "keras.layers.Layer", output: Any) -> bool:
    return len(getattr(output, "shape", ())) == 4 and "Pooling" not in type(layer).__name__


def _run(network: "keras.Model", tensor: "keras.KerasTensor", call: Call) -> Any:
    """Return the output of a network for another input, calling its layers one by one."""
    import keras

    results, grid = {}, _Grid(network, call)

    def run(layer: "keras.layers.Layer", *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            result = _run(layer, keras.tree.flatten(args)[0], call)
        else:
            result = grid.call(layer, *args, **kwargs)
        results[layer.name] = keras.tree.flatten(result)[0]
        return result

    plain = keras.Model(network.inputs, network.outputs)
    keras.models.clone_model(
        plain, input_tensors=[tensor], clone_function=lambda layer: layer, call_function=run
    )
    return grid.finish(results[plain.output_names[0]])


class _Grid:
    """Calls the layers of a network; opens the encoder of a transformer, and lays its patches out once."""

    def __init__(self, network: "keras.Model", call: Call) -> None:
        own = getattr(network, "encoder_layers", None)  # blocks that are the network's own layers
        self._call, self._network, self._last = call, network, own[-1] if own else None
        self._done = not getattr(network, "patch_size", 0)
        embedding = getattr(network, "embedding", None)
        if type(embedding).__name__ == "SigLIPVisionEmbedding":  # keras-hub 0.32 states one token too many
            tokens = (network.image_shape[0] // network.patch_size) ** 2
            embedding.compute_output_shape = lambda shape: (shape[0], tokens, network.hidden_dim)

    def call(self, layer: "keras.layers.Layer", *args: Any, **kwargs: Any) -> Any:
        """Return what a layer returns; of an encoder, what its blocks return one after the other."""
        blocks = _blocks(layer)
        if layer is self._last:
            return self._call(layer, self._lay_out(args[0]), *args[1:], **kwargs)
        if not blocks or self._done:
            return self._call(layer, *args, **kwargs)
        tokens = args[0]
        for block in blocks:
            # before the last block, where the class token still reads the patches
            tokens = self._lay_out(tokens) if block is blocks[-1] else tokens
            scores = {"return_attention_scores": True} if _has_scores(block) else {}  # None is no tensor
            tokens = self._call(block, tokens, **kwargs, **scores)
            tokens = tokens[0] if isinstance(tokens, tuple) else tokens
        norm = getattr(layer, "layer_norm", None)
        return (self._call(norm, tokens) if norm else tokens,)

    def finish(self, output: "keras.KerasTensor") -> "keras.KerasTensor":
        """Return the output of the network, its patches laid out if they were not before."""
        return self._lay_out(output) if len(output.shape) == 3 and not self._done else output

    def _lay_out(self, tokens: "keras.KerasTensor") -> "keras.KerasTensor":
        """Return tokens unchanged, after those of the patches went through a layer (n, rows, columns, d)."""
        import keras

        self._done = True
        rows, columns = _lay_patches(self._network, tokens.shape[1])
        count, width = rows * columns, tokens.shape[-1]
        before = tokens.shape[1] - count
        layers = keras.layers  # with names of their own: a model may hold layers of the default names
        patches = layers.Cropping1D((before, 0), name=f"{GRID}_patches")(tokens) if before else tokens
        spatial = self._call(layers.Reshape((rows, columns, width), name=GRID), patches)
        patches = layers.Reshape((count, width), name=f"{GRID}_tokens")(spatial)
        if not before:
            return patches
        others = layers.Cropping1D((0, count), name=f"{GRID}_others")(tokens)
        return layers.Concatenate(axis=1, name=f"{GRID}_all")([others, patches])


def count_patches(network: "keras.Model", tokens: int) -> int:
    """Return how many of the tokens of a transformer are patches; the others come before them."""
    rows, columns = _lay_patches(network, tokens)
    return rows * columns


def _lay_patches(network: "keras.Model", tokens: int) -> tuple[int, int]:
    """Return rows and columns of the patches; networks that merge patches halve both sides."""
    side = network.patch_size
    height, width = side if isinstance(side, list | tuple) else (side, side)
    rows, columns = network.inputs[0].shape[1] // height, network.inputs[0].shape[2] // width
    while rows * columns > tokens:
        rows, columns = rows // 2, columns // 2
    return rows, columns


def embed_network(
    network: "keras.Model",
    name: str,
    img_size: tuple[int, int],
    border: str,
    scaling: tuple[Sequence[float], Sequence[float]],
    pool_output: Call | None = None,
) -> tuple["keras.Model", str]:
    """Return a frozen model of grey pixels that holds a network as one layer, always in inference mode.

    Parameters
    ----------
    network : keras.Model
        With one input, of one or three channels.
    name : str
    img_size, border
        As for `preprocessing.prepare_pixels`.
    scaling : (sequence of float, sequence of float)
        Scale and offset of each channel.
    pool_output : callable, optional
        From the output of the network to that of the layer `POOLED`; the default is `pool`.

    Returns
    -------
    features : keras.Model
    map_layer : str
        As of `Application.build`.
    """
    import keras

    *size, channels = network.inputs[0].shape[1:]
    scale, offset = (values[:channels] for values in scaling)
    size = None if None in size else tuple(size)
    inputs, scaled = prepare_pixels(img_size, scale, offset, border, size)
    named = isinstance(network.input, dict)
    output = network({key: scaled for key in network.input} if named else scaled, training=False)
    model = keras.Model(inputs, (pool_output or pool)(output), name=name)
    model.trainable = False
    return model, last_spatial_layer(model)


def _blocks(layer: "keras.layers.Layer") -> list["keras.layers.Layer"]:
    """Return the blocks of an encoder that is one layer; empty for every other layer."""
    if not type(layer).__name__.endswith("Encoder"):
        return []
    return list(getattr(layer, "encoder_layers", None) or getattr(layer, "layers", []))


def _has_scores(block: "keras.layers.Layer") -> bool:
    return "return_attention_scores" in inspect.signature(block.call).parameters


def list_layers(model: "keras.Model") -> Iterator["keras.layers.Layer"]:
    """Yield the layers of a model from the input on; of a network or an encoder inside, its own layers."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from list_layers(layer)
        elif _blocks(layer):
            yield from _blocks(layer)
            if hasattr(layer, "layer_norm"):
                yield layer.layer_norm
        else:
            yield layer


def weighted_layers(model: "keras.Model") -> list["keras.layers.Layer"]:
    """Return those of `list_layers` that have weights."""
    return [layer for layer in list_layers(model) if layer.weights]


def pool(output: "keras.KerasTensor") -> "keras.KerasTensor":
    """Return features (n, d) as the layer `POOLED`: the mean over places of anything spatial."""
    import keras

    pools = {4: keras.layers.GlobalAveragePooling2D, 3: keras.layers.GlobalAveragePooling1D}
    return pools.get(len(output.shape), keras.layers.Identity)(name=POOLED)(output)


def last_spatial_layer(model: "keras.Model") -> str:
    """Return the name of the last layer with a spatial output that does not pool: where Grad-CAM looks."""
    return open_model(model).spatial[-1]
