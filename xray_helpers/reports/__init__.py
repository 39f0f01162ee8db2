"""Text, tables and pages: what a study says, as HTML and PDF."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "display": ["build_strips", "draw_maps", "show_banner", "show_text"],
        "pages": ["refresh_index"],
        "text": [
            "describe_data",
            "describe_engine",
            "describe_scores",
            "describe_search",
            "describe_training",
            "headline_table",
            "log_scores",
        ],
    },
)
