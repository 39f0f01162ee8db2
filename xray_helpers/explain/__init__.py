"""Where a model looked, whether maps may be believed, and what other than the fracture may predict the label.

Each question takes two modules: `localization` and `shortcuts` compute tables; `saliency_verdicts` and
`shortcut_verdicts` decide what follows from them, and word it.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "case_mix": ["measure_case_mix"],
        "images": ["choose_images", "explain_images"],
        "localization": ["evaluate_maps"],
        "localizers": ["evaluate_located"],
        "saliency_verdicts": ["assess_saliency", "describe_maps", "places_table", "sanity_table"],
        "shortcut_verdicts": [
            "assess_shortcuts",
            "assess_surface",
            "describe_shortcuts",
            "read_shortcuts",
            "shortcut_record",
        ],
        "shortcuts": [
            "choose_measured",
            "commonest_size",
            "list_views",
            "measure_surface",
            "predict_border",
            "predict_by_surface",
            "score_surface",
        ],
    },
)
