"""Honest, fast, shareable studies of bone-fracture X-ray classifiers.

The rooms, ground floor first; a module imports only from its own room and from those above it in this list:

settings      the parameters of a study, and the names of the classes
study         a study on disk: its folder, its files, its records, and what is kept for the next one
images        one file in, one grey picture out, or the reason why not
synthetic     synthetic radiographs with known patients, fractures and copies
data          a folder or CSV in, one table out, with its train, validation and test parts
same_source   which files come from one picture
evaluation    scores and their intervals, calibration, subgroups, and models compared
models        backbones, features, the head, fine-tuning and prediction
explain       where a model looked, and what else than the fracture may tell the label
export        a trained model converted, compared with the original, and in a folder to hand over
federated     training at several sites that share weights and no images
plots         a table in, axes out
reports       text, tables and pages
runner        notebooks as steps: run, resumed, swept, on this machine or a cluster
interactive   widgets, the reading room, and JupyterLab
cli           ``python -m xray_helpers``
"""

import os

import lazy_loader

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={"runner.notebook": ["open_run"], "runner.series": ["run_study"]},
    submodules=[
        "settings",
        "study",
        "images",
        "synthetic",
        "data",
        "same_source",
        "evaluation",
        "models",
        "explain",
        "export",
        "federated",
        "plots",
        "reports",
        "runner",
        "interactive",
    ],
)
