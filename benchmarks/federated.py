"""Training at several sites that share no images: is it worth it, and what do masks and noise cost?

    python benchmarks/federated.py [--quick | --weights DIR] [--rounds N] [--noise Z ...]

Three synthetic hospitals (another spectrum, noise and prevalence; the last is small), frozen MobileNetV2.
AUROC on the test part of each by a head of that hospital alone, by FedAvg, by FedProx, by FedAvg with secure
aggregation or with noise, and by a head of all images; MB that travelled and seconds a round.
"""

import argparse
import os
import tempfile
from pathlib import Path

import pandas as pd
from small import QUICK


def run(place: Path, arguments: argparse.Namespace) -> None:
    """Train in all ways and print the table."""
    from xray_helpers.evaluation.intervals import describe, unflatten_entry
    from xray_helpers.evaluation.site_scores import FEDERATED, LOCAL, POOLED, score_sites
    from xray_helpers.federated.apps import require_flower, simulate
    from xray_helpers.federated.averaging import privacy_loss
    from xray_helpers.federated.outcome import kept_weights, predict_sites
    from xray_helpers.federated.preparation import RUN, prepare_study
    from xray_helpers.federated.sites import read_sites
    from xray_helpers.models.head import prepare_tensorflow
    from xray_helpers.settings import build_settings
    from xray_helpers.study.tables import MANIFEST
    from xray_helpers.synthetic.dataset import write_hospitals

    require_flower()
    size = {"img_size": 64, "epochs": 2} if arguments.quick else {"epochs": 30, "patience": 5}
    weights = "random" if arguments.quick else arguments.weights
    settings = build_settings(name="federated", weights=weights, use_subset=1.0, **size)
    prepare_tensorflow(settings)
    table = write_hospitals(place / "set", 0.35 if arguments.quick else arguments.share)
    nothing, folders = pd.DataFrame(columns=list(MANIFEST)).astype(MANIFEST), {}
    for name, rows in pd.read_csv(table).groupby("hospital"):
        folders[name] = str(table.with_name(f"{name}.csv"))
        rows.to_csv(folders[name], index=False)
    sites = read_sites(folders, nothing, None, settings=settings)
    print(sites.table().to_string(index=False), *sites.notes, sites.left_out, sep="\n")
    ways = {"FedAvg": {}, "FedProx, 0.1": {"proximal": 0.1}, "secure aggregation": {"privacy": "secure"}}
    for noise in arguments.noise:
        ways[f"noise {noise:g}, clip 1"] = {"privacy": "noise", "noise": noise}
    if arguments.quick:
        ways = {"FedAvg": {}}
    print(
        "\n| trained | MB | seconds a round | spent |",
        " | ".join(f"AUROC, {s}" for s in sites.tables),
        "| all |",
    )
    print("|" + "---|" * (len(sites.tables) + 5))
    for name, options in ways.items():
        prepared = prepare_study(
            place, place / name.split()[0], sites, "MobileNetV2", settings, rounds=arguments.rounds, **options
        )
        record = simulate(place / name.split()[0] / RUN, prepared.places)
        shared, kept = kept_weights(place / name.split()[0] / RUN, record)
        others = (LOCAL, POOLED) if name == "FedAvg" else ()
        found = predict_sites(prepared, shared, place, sites, {"rule": "youden"}, ways=(FEDERATED, *others))
        scores = score_sites(found)
        total = sum(row["sent"] + row["received"] for row in record.rounds) / 1e6
        seconds = pd.Series([row["seconds"] for row in record.rounds]).median()
        spent = privacy_loss(options["noise"], len(record.rounds)) if "noise" in options else None
        for way in (*others, FEDERATED):
            row = scores[scores["way"] == way].to_dict("records")
            cells = " | ".join(describe(unflatten_entry(one, "auroc")) for one in row)
            if way == FEDERATED:
                epsilon = f"epsilon {spent:.0f}" if spent is not None else ""
                print(f"| {name}, round {kept} kept | {total:.1f} | {seconds:.1f} | {epsilon} | {cells} |")
            else:
                print(f"| {way} | 0 | | | {cells} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=QUICK)
    parser.add_argument("--weights", default="imagenet")
    parser.add_argument("--share", type=float, default=1.0, help="of the images of each hospital")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--noise", type=float, nargs="*", default=[0.01, 0.1, 1.0])
    given = parser.parse_args()
    given.rounds = given.rounds or (1 if given.quick else 10)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XRAY_HELPERS_ROOT"] = folder
        run(Path(folder), given)
