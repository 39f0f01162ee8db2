"""A table in, axes out; nothing is shown or saved but by `show`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibration": [
            "plot_band",
            "plot_decision_curve",
            "plot_operating_points",
            "plot_reliability",
            "plot_roc_parts",
        ],
        "data": ["plot_class_balance", "plot_intensities", "plot_sizes"],
        "images": ["plot_groups", "plot_radiographs", "plot_sample_predictions"],
        "intervals": ["plot_forest", "plot_ranking", "plot_spread"],
        "scores": [
            "plot_confusion",
            "plot_confusion_grid",
            "plot_cost",
            "plot_evaluation",
            "plot_evaluation_grid",
            "plot_history",
            "plot_leakage",
            "plot_roc_models",
        ],
        "style": ["set_theme", "show"],
    },
)
