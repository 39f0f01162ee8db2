"""A folder or CSV in, one table out, with its train, validation and test parts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "exams": ["describe_exams", "exams_table"],
        "external": [
            "counted_images",
            "find_places",
            "group_external",
            "reach_study",
            "read_external",
            "within_reach",
        ],
        "leaks": ["check_leak_gate", "compare_leaks", "measure_leak"],
        "manifest": ["assign_groups", "build_manifest", "count_flow", "read_pictures"],
        "parts": [
            "class_balance",
            "count_classes",
            "manifest_key",
            "mark_counted",
            "training_target",
            "used_part",
            "weigh_copies",
        ],
        "splits": ["assign_splits"],
    },
)
