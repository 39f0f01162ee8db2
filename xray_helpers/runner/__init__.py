"""Notebooks as steps: run, resumed, swept over parameters, on this machine or a cluster."""
