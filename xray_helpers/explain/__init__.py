"""Where a model looked, whether maps may be believed, and what else than the fracture may tell the label."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "images": ["choose_images", "explain_images"],
        "localization": ["assess_saliency", "describe_maps", "evaluate_maps", "places_table", "sanity_table"],
        "shortcut_verdicts": [
            "assess_shortcuts",
            "describe_assessment",
            "describe_controls",
            "evaluate_measures",
            "read_shortcuts",
            "record_of",
        ],
        "shortcuts": [
            "choose_measured",
            "commonest_size",
            "evaluate_surface",
            "list_views",
            "measure_surface",
            "predict_border",
            "predict_by_surface",
        ],
    },
)
