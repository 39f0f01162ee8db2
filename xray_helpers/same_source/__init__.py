"""Which files come from one picture: copies, re-encodings, rotations, flips and crops."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cross_set": ["count_shared", "describe_shared", "find_shared"],
        "groups": ["find_label_conflicts", "iterate_groups"],
        "patients": ["caption_pairs", "describe_patients", "propose_patients", "review_with"],
        "search": ["find_same_source"],
    },
)
