"""A table in, axes or a figure out; only `show` saves a figure."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "classes": ["plot_class_confusion", "plot_class_reliability"],
        "calibration": ["plot_band", "plot_decision_curve", "plot_reliability"],
        "curves": ["plot_history", "plot_operating_points", "plot_roc_models", "plot_roc_parts"],
        "external": ["plot_external_scores", "plot_gain", "plot_local_curve", "plot_probabilities"],
        "data": ["plot_class_balance", "plot_intensities", "plot_sizes"],
        "detection": ["plot_froc", "plot_marks"],
        "federated": ["plot_rounds", "plot_sites"],
        "images": ["plot_groups", "plot_radiographs", "plot_sample_predictions"],
        "intervals": ["plot_forest", "plot_intervals", "plot_ranking", "plot_spread"],
        "scores": [
            "plot_confusion",
            "plot_confusion_grid",
            "plot_cost",
            "plot_evaluation",
            "plot_evaluation_grid",
            "plot_leakage",
        ],
    },
)
