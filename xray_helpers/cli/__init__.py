"""The command line, ``python -m xray_helpers COMMAND``: a thin layer over the rooms of the package."""

from xray_helpers.cli import images, pages, sites, studies
from xray_helpers.cli.base import main

__all__ = ["images", "main", "pages", "sites", "studies"]
