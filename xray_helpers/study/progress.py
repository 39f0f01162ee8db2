"""Progress: a bar in JupyterLab, and elsewhere a line that overwrites itself."""

import os
from typing import Any

from tqdm import tqdm


def progress(*what: Any, **options: Any) -> tqdm:
    """Return tqdm's bar for JupyterLab, where a person opened the notebook; else its line of text."""
    if os.environ.get("JPY_SESSION_NAME"):
        from tqdm.notebook import tqdm as bar

        return bar(*what, **options)
    return tqdm(*what, **options)
