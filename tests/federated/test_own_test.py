"""A site's own test part: the same scores as where all sites are on one machine, and what is refused."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from xray_helpers.cli import main
from xray_helpers.federated.client import Site
from xray_helpers.federated.outcome import kept_weights, predict_sites
from xray_helpers.federated.own_test import score_site
from xray_helpers.federated.preparation import Part, Prepared, _write_site
from xray_helpers.federated.rounds import choose_round, load_weights, run_rounds, save_weights
from xray_helpers.settings import SPLITS, InputError
from xray_helpers.study.files import read_csv, read_json, write_json
from xray_helpers.study.tables import MANIFEST

WIDTH = 12  # of the conftest's plan
SIZES = {"a": (80, 30, 60), "b": (40, 20, 30)}


def write_site(folder, name, sizes=None, seed=5):
    """Write a site of random features with a manifest, two images of each group; return its parts."""
    rng, truth = np.random.default_rng([seed, ord(name)]), np.random.default_rng(1).normal(size=WIDTH)
    split = np.repeat(SPLITS, sizes or SIZES[name])
    x = rng.normal(size=(len(split), WIDTH)).astype("float32")
    fractured = x @ truth + rng.normal(size=len(x)) > 0
    rows = pd.DataFrame({"path": [f"{name}/{n:03d}.png" for n in range(len(x))], "split": split})
    rows["label"] = np.where(fractured, "Fractured", "Non-Fractured")
    rows = rows.assign(status="used", counted=True, group=[f"{name}/{n // 2}" for n in range(len(x))])
    rows = rows.astype({key: kind for key, kind in MANIFEST.items() if key in rows})
    parts = {}
    for one in SPLITS:
        mine = rows[rows["split"] == one].reset_index(drop=True)
        parts[one] = Part(mine.assign(y_true=(mine["label"] == "Fractured").astype(int)), x[split == one])
    _write_site(folder, name, "backbone", parts, None, rows)
    return parts


@pytest.fixture
def run(write_plan, direct, tmp_path):
    """Two sites, ready, and a finished run of both; what the simulation would keep in memory."""
    parts = {name: write_site(tmp_path / name, name) for name in SIZES}
    plan, rounds = write_plan("rounds", local_epochs=3)
    places = [tmp_path / name for name in SIZES]
    record = run_rounds(rounds, direct(plan, places))
    return Prepared(plan, parts, places), rounds, record


def test_a_site_gets_the_numbers_that_the_simulation_has_for_it(run, tmp_path):
    prepared, rounds, record = run
    rule = {"rule": "youden"}
    weights, kept = kept_weights(rounds, record)
    assert kept == choose_round(record) > 0
    expected = predict_sites(prepared, weights, None, None, rule, ways=("local", "federated"))
    for number in set(range(4)) - {kept}:
        (rounds / f"round_{number:03d}.npz").unlink()  # only the kept one was sent
    done = CliRunner().invoke(main, ["site-test", str(tmp_path / "a"), str(rounds)])
    assert done.exit_code == 0, done.output
    found = read_csv(tmp_path / "a" / "test" / "predictions.csv")
    expected = expected[expected["site"] == "a"].reset_index(drop=True)
    assert found["path"].tolist() == expected["path"].tolist()
    for column in ("y_true", "y_prob", "y_pred", "threshold", "temperature"):
        np.testing.assert_allclose(found[column], expected[column], rtol=1e-6)
    assert found.groupby("way")["threshold"].nunique().tolist() == [1, 1]
    scores = read_csv(tmp_path / "a" / "test" / "scores.csv")
    assert scores[["site", "way", "n", "n_groups"]].to_numpy().tolist() == [
        ["a", "local", 60, 30],
        ["a", "federated", 60, 30],
    ]
    assert (scores["auroc_low"] < scores["auroc"]).all()
    for told in (
        "60 images in 30 groups",
        "Brier score",
        "Federated against local, by AUROC: ",
        f"Round {kept}",
    ):
        assert told in done.output, done.output
    facts = read_json(tmp_path / "a" / "test" / "results.json")
    assert (facts["site"], facts["kept"], facts["plan"]) == ("a", kept, prepared.plan.key)


def test_the_rounds_never_read_the_test_part(run, tmp_path):
    site = Site.read(tmp_path / "a")
    assert site.test is None
    assert len(Site.read(tmp_path / "a", test=True).test[1]) == SIZES["a"][2]


def test_a_test_part_of_one_class_has_no_auroc_and_the_rest_of_the_scores(run, tmp_path):
    _, rounds, _ = run
    ready = tmp_path / "a"
    table, site = read_csv(ready / "manifest.csv"), Site.read(ready, test=True)
    healthy = (table["split"] == "test") & (table["label"] == "Fractured")
    x, y = site.test
    site._replace(test=(x[y == 0], y[y == 0])).write(ready)
    table[~healthy].to_csv(ready / "manifest.csv", index=False)
    told = score_site(ready, rounds)
    assert "not defined" in told
    assert "not known for a" in told
    scores = read_csv(ready / "test" / "scores.csv")
    assert scores["auroc"].isna().all()
    assert scores[["specificity", "brier"]].notna().all(axis=None)


def spoil(rounds, kept, change):
    """Write other weights for the round that is kept."""
    path = rounds / f"round_{kept:03d}.npz"
    save_weights(path, change(load_weights(path)))


def test_what_does_not_belong_together_is_refused_in_a_sentence(run, tmp_path, write_plan):
    prepared, rounds, record = run
    kept, ready = choose_round(record), tmp_path / "a"

    def refused(told, mend=None, site=ready):
        """Try a copy of the run that `mend` spoils."""
        copy = shutil.copytree(rounds, tmp_path / "copy")
        if mend:
            mend(copy)
        done = CliRunner().invoke(main, ["site-test", str(site), str(copy)])
        shutil.rmtree(copy)
        assert (done.exit_code, told in done.output) == (2, True), done.output
        assert not (site / "test").exists()

    npz = f"round_{kept:03d}.npz"
    refused("holds no plan.json", lambda at: (at / "plan.json").unlink())
    refused("no finished round", lambda at: (at / "rounds.json").unlink())
    refused(f"holds no {npz}", lambda at: (at / npz).unlink())
    refused(f"holds no {npz} that can be read", lambda at: (at / npz).write_bytes(b"PK\x03\x04half"))
    refused("the weights have the shapes", lambda at: spoil(at, kept, lambda w: [w[0][:, :5], *w[1:]]))
    refused("not finite", lambda at: spoil(at, kept, lambda w: [w[0] * np.nan, *w[1:]]))
    refused(f"or {npz} is of another run", lambda at: spoil(at, kept, lambda w: [w[0] * 0.5, *w[1:]]))
    other = {"plan": replace(prepared.plan, seed=9), "sites": replace(prepared.plan, sites=("x", "y"))}
    start = load_weights(rounds / "round_000.npz")
    for plan in other.values():  # rounds.json of another plan beside it
        refused("no finished round", lambda at, plan=plan: keep_record(at, plan, start))

    for name, told in (("z", "no site 'z'"), ("a", "the plan's backbone")):
        Site.read(ready, test=True)._replace(name=name, backbone=f"backbone-{name}").write(
            shutil.copytree(ready, tmp_path / f"other-{name}")
        )
        refused(told, site=tmp_path / f"other-{name}")
    again = tmp_path / "again"
    write_site(again, "a", (78, 30, 62))  # drawn anew, with other counts
    refused("in the rounds, so that its test images", site=again)
    write_site(again, "a", seed=6)  # or with the same ones
    refused("may have been trained on", site=again)
    shutil.copytree(ready, tmp_path / "old")
    Site.read(ready).write(tmp_path / "old")
    refused("holds no test part", site=tmp_path / "old")
    table = read_csv(ready / "manifest.csv")
    table.iloc[:-1].to_csv(tmp_path / "old" / "manifest.csv", index=False)
    Site.read(ready, test=True).write(tmp_path / "old")
    refused("features of the test part", site=tmp_path / "old")
    (tmp_path / "old" / "features.npz").unlink()
    refused("holds no site", site=tmp_path / "old")


def keep_record(folder, plan, start):
    """Put another plan beside rounds.json."""
    record = read_json(folder / "rounds.json")
    plan.write(folder, start)
    write_json(folder / "rounds.json", record)


def test_a_site_that_the_kept_round_left_out_is_known_by_the_loss_of_the_start(run, tmp_path):
    _, rounds, record = run
    facts = read_json(rounds / "rounds.json")
    del facts["losses"][choose_round(record)]["a"]
    facts["losses"][0]["a"] += 0.1
    write_json(rounds / "rounds.json", facts)
    with pytest.raises(InputError, match=r"round_000\.npz is of another run"):
        score_site(tmp_path / "a", rounds)
