"""Training at several sites that share weights and no images, by Flower; `client` is the work of one site."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "apps": ["require_flower", "simulate"],
        "outcome": [
            "describe_privacy",
            "describe_rounds",
            "describe_trained",
            "kept_weights",
            "leaves_table",
            "measure_costs",
            "predict_sites",
            "rounds_table",
        ],
        "preparation": ["prepare_study"],
        "rounds": ["loss_table"],
        "sites": ["open_sites"],
    },
)
