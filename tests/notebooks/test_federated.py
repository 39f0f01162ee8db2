"""Three hospitals train together: in the simulation, and on SuperNodes over TLS, one of them killed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.special import logit

from xray_helpers.cli import main
from xray_helpers.data.parts import used_part
from xray_helpers.federated.averaging import check_update
from xray_helpers.federated.client import Site, build_trained, predict, train_round
from xray_helpers.federated.rounds import Plan, load_weights, run_rounds
from xray_helpers.runner.federated import plan_federated, run_federated
from xray_helpers.runner.series import run_study
from xray_helpers.settings import InputError, build_settings
from xray_helpers.study.files import read_csv, read_json, write_json
from xray_helpers.study.folders import notebooks_folder
from xray_helpers.synthetic.dataset import write_hospitals

pytest.importorskip("flwr", reason="Flower is not installed: make federated")
pytest.importorskip("ray", reason="Flower's simulation is not installed: make federated")
pytestmark = pytest.mark.slow
SITES = ["hospital-a", "hospital-b", "hospital-c"]
ROUNDS = {"rounds": "2", "local_epochs": "1", "timeout": "300"}


def load(name):
    """Return a module of tests/federated."""
    path = Path(__file__).parents[1] / "federated" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of three hospitals in one table, with the notebooks that a federation needs."""
    place = tmp_path_factory.mktemp("hospitals")
    write_hospitals(place / "set", 0.5)
    needed = (
        "01_data_exploration",
        "02a_extract_features",
        "02_train_model",
        "03_evaluate_model",
        "09_federated",
    )
    (place / "notebooks").mkdir()
    for name in needed:
        shutil.copy(notebooks_folder() / f"{name}.ipynb", place / "notebooks")
    quick = {"repeats": 0, "maps": 0, "shortcuts": "off", "epochs": 8, "use_subset": 1.0, "img_size": 64}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_HELPERS_ROOT", str(place))
        patch.setenv("XRAY_HELPERS_NOTEBOOKS", str(place / "notebooks"))
        data = str(place / "set" / "phantoms.csv")
        yield run_study(
            build_settings(name="h", data=data, weights="random", models=["MobileNetV2"], **quick)
        ).parent


@pytest.fixture(scope="module")
def simulated(study):
    """The folder of the federation, after the command line was run."""
    values = [word for key, value in ROUNDS.items() for word in ("-p", f"{key}={value}")]
    command = [sys.executable, "-m", "xray_helpers", "federated", "h", "-p", "site_column=hospital", *values]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("federated/hospital/09_federated.html")
    return study / "federated" / "hospital"


def test_every_site_is_compared_and_nothing_of_its_images_left_it(study, simulated):
    scores = read_csv(simulated / "scores.csv")
    assert scores["site"].unique().tolist() == [*SITES, "all sites together"]
    assert set(scores["way"]) == {"local", "federated", "pooled", "study's model"}
    predictions = read_csv(simulated / "predictions.csv")
    manifest = read_csv(study / "manifest.csv").set_index("path")
    assert set(manifest.loc[predictions["path"], "split"]) == {"test"}
    own = predictions[predictions["way"] == "study's model"].set_index("path")["y_prob"]
    recorded = read_csv(study / "MobileNetV2" / "predictions_test.csv").set_index("path")["y_prob"]
    np.testing.assert_allclose(own, recorded[own.index], atol=0.02)
    local = predictions[predictions["way"] == "local"].drop_duplicates("site")
    assert local["threshold"].nunique() == 3
    ready = simulated / "sites" / "hospital-b"  # the same numbers as at that hospital alone
    done = CliRunner().invoke(main, ["site-test", str(ready), str(simulated / "rounds")])
    assert done.exit_code == 0, done.output
    alone = read_csv(ready / "test" / "predictions.csv").set_index(["way", "path"])
    same = predictions[predictions["site"] == "hospital-b"].set_index(["way", "path"]).loc[alone.index]
    for column in ("y_true", "y_prob", "y_pred", "threshold", "temperature"):
        np.testing.assert_allclose(alone[column], same[column], atol=1e-5)
    gains = read_csv(simulated / "gains.csv")
    assert len(gains) == 4 * 3 * 2
    small = gains[(gains["site"] == "hospital-c") & (gains["score"] == "auroc")]
    assert set(small["state"]) == {"not known"}
    report = (simulated / "09_federated.html").read_text()
    assert "164,097 numbers" in report
    assert "No source or patient is shared between sites" in report
    assert str(study.parent.parent) not in report
    assert 'href="federated/hospital/09_federated.html"' in (study / "index.html").read_text()
    assert run_federated("h", {}, "hospital", {"site_column": "hospital", **ROUNDS})[1] == ""


def test_three_supernodes_give_the_same_weights_and_one_that_is_killed_is_told(study, simulated):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here, which makes the certificates")
    real, killed = (study / "federated" / name for name in ("real", "killed"))
    for place, seconds in ((real, 300.0), (killed, 75.0)):
        (place / "rounds").mkdir(parents=True)
        shutil.copy(simulated / "rounds" / "round_000.npz", place / "rounds")
        plan = read_json(simulated / "rounds" / "plan.json") | {"timeout": seconds}
        write_json(place / "rounds" / "plan.json", plan)
    with load("loopback").Loopback([simulated / "sites" / name for name in SITES]) as here:
        here.run(real / "rounds")
        here.run(killed / "rounds", kill="hospital-c")
    record = read_json(real / "rounds" / "rounds.json")
    assert [sorted(row["sites"]) for row in record["rounds"]] == [SITES, SITES]
    for number in (1, 2):
        name = f"rounds/round_{number:03d}.npz"
        for ours, theirs in zip(load_weights(simulated / name), load_weights(real / name), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    record = read_json(killed / "rounds" / "rounds.json")
    assert [sorted(row["sites"]) for row in record["rounds"]] == [SITES, SITES[:2]]
    page, error = run_federated("h", {}, "killed", {"site_column": "hospital", **ROUNDS})
    assert error == ""
    assert read_json(killed / "rounds" / "rounds.json") == record  # the notebook trained nothing anew
    report = page.read_text()
    assert "hospital-c was left out of round 2" in report
    assert record["rounds"][1]["left_out"]["hospital-c"] in report


@pytest.mark.parametrize("recipe", ["frozen", "finetune"])
def test_a_hospital_elsewhere_gets_ready_with_the_plan_alone(study, tmp_path, recipe):
    """As docs/how-to/federated.md tells: ``--elsewhere`` there; ``site``, ``site-test`` here."""
    call, name, own = CliRunner().invoke, f"trial-{recipe}", study.parents[1] / "set" / "hospital-b"
    known = read_json(study / "study.json")
    write_json(study / "study.json", known | {"settings": known["settings"] | {"recipe": recipe}})
    done = call(main, ["federated", "h", "--elsewhere", "north,south", "--name", name, "-p", "rounds=1"])
    write_json(study / "study.json", known)
    assert done.exit_code == 0, done.output
    folder = shutil.copytree(study / "federated" / name / "rounds", tmp_path / "rounds")
    told = ["--name", "north", "--data", str(own), "--to", str(tmp_path / "ready"), "--weights", "random"]
    done = call(main, ["site", str(folder), *told])
    assert done.exit_code == 0, done.output
    assert "images for validation" in done.output
    assert "ready is ready" in done.output
    assert "shared between sites" not in done.output
    plan, site, start = (
        Plan.read(folder),
        Site.read(tmp_path / "ready"),
        load_weights(folder / "round_000.npz"),
    )
    assert (len(site.train[1]) > 50, site.upper is None, plan.trained == ()) == (
        True,
        *[recipe == "frozen"] * 2,
    )
    assert check_update(train_round(site, start, plan, 1), start) == ""
    run_rounds(folder, load("conftest").Direct(plan, [tmp_path / "ready"]))
    done = call(main, ["site-test", str(tmp_path / "ready"), str(folder)])
    assert done.exit_code == 0, done.output
    table = read_csv(tmp_path / "ready" / "manifest.csv")
    scores = read_csv(tmp_path / "ready" / "test" / "scores.csv").set_index("way")
    assert scores["n"].tolist() == [len(used_part(table, "test"))] * 2
    kept = read_json(tmp_path / "ready" / "test" / "results.json")["kept"]
    shared = build_trained(plan, load_weights(folder / f"round_00{kept}.npz"), site.upper)
    logits = logit(predict(shared, Site.read(tmp_path / "ready", test=True).test[0]))
    found = read_csv(tmp_path / "ready" / "test" / "predictions.csv").query("way == 'federated'")
    np.testing.assert_allclose(logit(found["y_prob"]), logits / found["temperature"], atol=1e-3)
    told[1] = "west"
    assert "its sites are north, south" in call(main, ["site", str(folder), *told]).output


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_breaks_at_no_width_and_asks_nobody(simulated, open_page, width):
    page = open_page(simulated / "09_federated.html", width)
    assert page.complaints == []
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert page.evaluate("[...document.images].filter(i => !i.naturalWidth || !i.alt).length") == 0


def test_what_cannot_be_asked_is_told_before_anything_runs(study, tmp_path):
    for values, told in (
        ({}, "Say which sites"),
        ({"site_column": "ward"}, "no column 'ward'"),
        ({"site_column": "hospital", "round": "3"}, "did you mean rounds"),
        ({"site_column": "hospital", "rounds": "many"}, "rounds = 'many' is no number"),
        ({"site_column": "hospital", "privacy": "magic"}, "one of none, secure, noise"),
    ):
        with pytest.raises(InputError, match=told):
            plan_federated(study, {}, "", values)
    with pytest.raises(InputError, match="nothing-there"):
        plan_federated(study, {"a": str(tmp_path / "nothing-there")}, "", {})
    assert not json.loads((study / "local.json").read_text()).get("federated", {}).get("sites")
