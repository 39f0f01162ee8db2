"""What each export of a model costs; prints a table.

    python benchmarks/export.py STUDY MODEL [--to litert,onnx] [--int8]
    python benchmarks/export.py --quick

Exports a model of a finished study and compares each format with ``model.keras`` on the test images.
"""

import os
import tempfile
from pathlib import Path

import click
import pandas as pd
from small import QUICK, run_study

COLUMNS = {
    "mib": "MiB",
    "one_thread": "ms, one thread",
    "all_threads": "ms, all threads",
    "memory": "memory, MiB",
    "largest": "largest difference",
    "mean": "mean difference",
    "flips": "flips",
    "verdict": "verdict",
}


@click.command()
@click.argument("study", default="")
@click.argument("model", default="MobileNetV2")
@click.option("--to", default="litert,openvino,onnx")
@click.option("--int8", is_flag=True)
@click.option("--quick", is_flag=True, help=QUICK)
def main(study: str, model: str, to: str, int8: bool, quick: bool) -> None:
    """Print a row a format."""
    from xray_helpers.runner.export import run_export

    if not study and not quick:
        raise click.UsageError("Say a study and a model; or --quick.")
    with tempfile.TemporaryDirectory(prefix="export-") as place:
        if quick:
            run_study(Path(place))
            os.environ["XRAY_HELPERS_ROOT"], study, to = place, "small", "litert-dynamic-int8"
        page, error = run_export(study, model, to.split(","), int8=int8)
        table = pd.read_csv(page.with_name("proof.csv")).set_index("format")[list(COLUMNS)]
    print(table.rename(columns=COLUMNS).to_string(float_format="{:.3g}".format))
    if error:
        print(error)


if __name__ == "__main__":
    main()
