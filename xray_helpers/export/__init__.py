"""A trained model in forms that leave: converted, compared with the original, and in a folder to hand over.

`formats.export_model` converts to one format, `bundle.read_bundle` opens a folder that was handed over, and
`runtimes.open_runtime` runs its file.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bundle": ["read_bundle", "write_bundle"],
        "engine": ["open_deployed", "open_engine"],
        "formats": ["choose_formats", "export_model"],
        "page": ["write_page"],
        "proof": ["compare_formats", "convert_formats", "hand_over", "measure_formats"],
        "runtimes": ["open_runtime"],
        "tables": [
            "bundle_table",
            "change_table",
            "cost_table",
            "describe_proof",
            "describe_reasons",
            "flip_pictures",
            "flip_table",
            "loss_intervals",
            "loss_table",
        ],
    },
)
