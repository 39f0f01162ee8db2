"""Widgets, the reading room, and JupyterLab."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "curves": ["explore_threshold", "watch_training"],
        "dataset": ["browse_dataset"],
        "predictions": ["browse_errors", "compare_two"],
        "reading_room": ["NOTICE", "describe_decision_rule", "open_room"],
    },
)
