"""Synthetic radiographs with known patients, fractures and copies: the demo, and the tests."""
