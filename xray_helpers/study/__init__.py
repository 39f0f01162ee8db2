"""A study on disk: its folder, its files, its records, and what is kept for the next one."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "external": ["append_history", "external_place", "lock_models", "read_history"],
        "federations": ["federation_places"],
        "folders": ["weights_word"],
    },
)
