"""Small networks of KerasHub with random weights, made for tests, in the layouts of their makers."""

import json

import numpy as np

SIDE = 64  # height and width that they take


def make_preset(hub, kind):
    """Return a small network of a kind, with weights that differ from layer to layer."""
    import keras

    keras.utils.set_random_seed(0)
    shape, small = {"image_shape": (SIDE, SIDE, 3)}, {"num_layers": 3, "num_heads": 2, "hidden_dim": 32}
    models, wide = hub.models, {"intermediate_dim": 64}
    network = {
        "vit": lambda: models.ViTBackbone(patch_size=16, mlp_dim=64, **small, **shape),
        "deit": lambda: models.DeiTBackbone(patch_size=16, **wide, **small, **shape),
        "dinov2": lambda: models.DINOV2Backbone(
            patch_size=16,
            num_register_tokens=2,
            position_embedding_shape=(SIDE, SIDE),
            **wide,
            **small,
            **shape,
        ),
        "dinov3": lambda: models.DINOV3Backbone(patch_size=16, **wide, **small, **shape),
        "siglip": lambda: models.SigLIPVisionEncoder(patch_size=16, **wide, **small, **shape),
        "swin": lambda: models.SwinTransformerBackbone(
            embed_dim=16, depths=(1, 1, 2), num_heads=(1, 2, 4), window_size=4, **shape
        ),
        "resnet": lambda: models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 64],
            stackwise_num_blocks=[1, 1],
            stackwise_num_strides=[1, 2],
            block_type="basic_block",
        ),
    }[kind]()
    rng = np.random.default_rng(0)
    for weight in network.trainable_variables:
        weight.assign_add(rng.normal(0, 0.02, weight.shape))
    return network


def write_hugging_face(network, folder):
    """Write a ViT of KerasHub in the layout of Hugging Face: config.json, model.safetensors, its input."""
    from safetensors.numpy import save_file

    folder.mkdir()
    config = {"model_type": "vit", "image_size": SIDE, "patch_size": 16, "num_hidden_layers": 3}
    config |= {"num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64, "qkv_bias": True}
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "architectures": ["ViTModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    said = {
        "do_normalize": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "size": {"height": 64, "width": 64},
    }
    said |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A ViT\n")
    embedding, encoder = network.layers[1], network.layers[2]
    at = "vit.embeddings"
    tensors = {
        f"{at}.patch_embeddings.projection.weight": np.asarray(embedding.patch_embedding.kernel).transpose(
            3, 2, 0, 1
        ),
        f"{at}.patch_embeddings.projection.bias": np.asarray(embedding.patch_embedding.bias),
        f"{at}.cls_token": np.asarray(embedding.class_token),
        f"{at}.position_embeddings": np.asarray(embedding.position_embedding.embeddings)[None],
    }

    def add(name, layer):
        kernel = layer.kernel if hasattr(layer, "kernel") else layer.gamma
        bias = layer.bias if hasattr(layer, "kernel") else layer.beta
        width = 32 if "attention" in name else kernel.shape[-1]
        tensors[f"{name}.weight"] = (
            np.asarray(kernel).reshape(-1, width).T if kernel.ndim > 1 else np.asarray(kernel)
        )
        tensors[f"{name}.bias"] = np.asarray(bias).reshape(-1)

    for number, block in enumerate(encoder.encoder_layers):
        at = f"vit.encoder.layer.{number}"
        for part in ("query", "key", "value"):
            add(f"{at}.attention.attention.{part}", getattr(block.mha, f"{part}_dense"))
        add(f"{at}.attention.output.dense", block.mha.output_dense)
        add(f"{at}.layernorm_before", block.layer_norm_1)
        add(f"{at}.layernorm_after", block.layer_norm_2)
        add(f"{at}.intermediate.dense", block.mlp.dense_1)
        add(f"{at}.output.dense", block.mlp.dense_2)
    add("vit.layernorm", encoder.layer_norm)
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors"
    )
