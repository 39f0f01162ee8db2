"""What Keras models and ONNX files need on the way from one to the other."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras
    import onnx
_SMALL = 256  # values in a tensor that stays float32


def inline_constants(model: "keras.Model") -> None:
    """Make NumPy arrays of the constants of normalisation: tf2onnx would make inputs of tensors."""
    for layer in model.layers:
        if type(layer).__name__ == "Normalization":
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)


def store_as_float16(graph: "onnx.ModelProto") -> None:
    """Store large float32 tensors as float16, cast when a file is loaded, so that it computes in float32."""
    import onnx

    casts = []
    for tensor in graph.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < _SMALL or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}_float16"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
