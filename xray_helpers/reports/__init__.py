"""What notebooks and pages show: sentences, tables, warnings, and a study as HTML and PDF.

Notebooks use `display` and `text`. `html` makes a report of an executed notebook; `pages`, `overview`,
`checklist`, `cards` and `audit` each write a page; `sharing` and `pdf` export them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "display": ["build_strips", "draw_maps", "show_banner", "show_text"],
        "external": [
            "build_results",
            "build_shared_strips",
            "describe_lock",
            "external_table",
            "history_entry",
            "history_table",
            "lock_table",
        ],
        "findings": ["Findings", "find_of_model"],
        "pages": ["refresh_index"],
        "text": [
            "describe_backbone",
            "describe_data",
            "describe_engine",
            "describe_parts",
            "describe_scores",
            "describe_search",
            "describe_training",
            "headline_table",
            "log_scores",
        ],
    },
)
