"""Honest, fast, shareable studies of bone-fracture X-ray classifiers."""

__version__ = "0.1.0"
