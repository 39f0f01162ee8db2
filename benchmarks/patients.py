"""Which proposals of one patient are right; prints a table.

    python benchmarks/patients.py [--images 520] [--weights PLACE]
    python benchmarks/patients.py --quick

Synthetic patients have up to three views each, which the search is not told. Their file names say which views
belong together, as names of exported series often do: with `--no-names` they are hashes.
"""

import tempfile
from pathlib import Path

import click
import pandas as pd
from small import QUICK, write_set
from statsmodels.stats.proportion import proportion_confint


@click.command()
@click.option("--images", default=520, show_default=True)
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--names/--no-names", default=True)
@click.option("--quick", is_flag=True, help=QUICK)
def main(images: int, weights: str, names: bool, quick: bool) -> None:
    """Print how many pairs are proposed from each sum of evidence on, and how many of them are right."""
    from xray_helpers.data.manifest import build_manifest
    from xray_helpers.models.backbones import embedder_weights
    from xray_helpers.models.features import build_embedder
    from xray_helpers.models.inference import EXACT
    from xray_helpers.same_source import patients, search
    from xray_helpers.settings import build_settings
    from xray_helpers.study.records import sha256_of

    place = None if quick else embedder_weights(weights)
    with tempfile.TemporaryDirectory(prefix="patients-") as work:
        folder, _ = write_set(Path(work), 60 if quick else images)
        table = pd.read_csv(folder / "phantoms.csv")
        if not names:
            table["new"] = [f"{sha256_of(folder / path)[:12]}.png" for path in table["path"]]
            for row in table.itertuples():
                (folder / row.path).rename(folder / row.new)
            table = table.drop(columns="path").rename(columns={"new": "path"})
        patient = table.set_index("path")["patient"]
        table[["path", "label"]].to_csv(folder / "unknown.csv", index=False)
        manifest, _ = build_manifest(build_settings("full", data=str(folder / "unknown.csv")))
        found = search.find_same_source(manifest, folder)
        manifest["source_group"] = found.source
        patients._LEAST, patients._MOST = 4.0, 10_000
        pairs = patients.propose_patients(manifest, folder, found.links, *build_embedder(place, EXACT))
    right = patient[pairs["path_a"]].to_numpy() == patient[pairs["path_b"]].to_numpy()
    print(f"{manifest['source_group'].nunique()} sources of {patient.nunique()} patients")
    print("evidence  pairs  right  share of right ones (95 % interval)")
    for least in (4.0, 4.5, 5.0, 5.5, 6.0, 6.5):
        chosen = right[pairs["evidence"] >= least]
        if len(chosen):
            low, high = proportion_confint(chosen.sum(), len(chosen), method="wilson")
            print(
                f"{least:8} {len(chosen):6} {chosen.sum():6}  {chosen.mean():.2f} ({low:.2f} to {high:.2f})"
            )


if __name__ == "__main__":
    main()
