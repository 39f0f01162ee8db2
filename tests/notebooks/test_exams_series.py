"""The series on a small set in the layout of MURA, whose patients have exams of one or two views."""

import html
import re
import shutil

import pandas as pd
import pytest
from mura import write_mura

from xray_helpers.evaluation.exams import compare_exams
from xray_helpers.reports.cards import write_model_card
from xray_helpers.reports.checklist import write_checklist
from xray_helpers.reports.pages import write_index
from xray_helpers.reports.sharing import export_study
from xray_helpers.runner.series import run_study
from xray_helpers.settings import build_settings
from xray_helpers.study.files import read_csv, read_json, write_csv

pytestmark = pytest.mark.slow
QUICK = {"img_size": 64, "epochs": 2, "weights": "random", "use_subset": 1.0, "repeats": 0, "maps": 0}


@pytest.fixture(scope="module")
def mura_study(root_folder, tmp_path_factory):
    """A study of one model on some 160 phantoms, its exams scored by their largest probability."""
    place = tmp_path_factory.mktemp("mura") / "MURA"
    write_mura(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XRAY_HELPERS_ROOT", str(root_folder))
        values = QUICK | {"models": ["MobileNetV2"], "exam_score": "max", "threshold_rule": "youden"}
        return run_study(build_settings(name="mura", data=str(place), **values)).parent


def read_words(page):
    return html.unescape(re.sub(r"<[^>]+>", " ", page.read_text()))


def test_each_exam_is_in_one_part(mura_study):
    used = read_csv(mura_study / "manifest.csv").query("status == 'used'")
    assert used["exam"].notna().all()
    assert used.groupby("exam")["split"].nunique().max() == 1
    assert used.groupby("exam")["patient"].nunique().max() == 1
    exams = used.loc[used["counted"], "exam"].nunique()  # of two exposures that are one source, one counts
    assert f"belong to {exams} exams" in read_words(mura_study / "01_data_exploration.html")


def test_scores_by_exam_are_those_of_the_images(mura_study):
    folder = mura_study / "MobileNetV2"
    images, exams = read_csv(folder / "predictions_test.csv"), read_csv(folder / "predictions_exams.csv")
    exam = read_csv(mura_study / "manifest.csv").set_index("path")["exam"]
    of_exam = images.groupby(images["path"].map(exam))["y_prob"]
    for row in exams.itertuples():
        assert row.y_prob == pytest.approx(of_exam.max()[exam[row.path]])
        assert row.y_mean == pytest.approx(of_exam.mean()[exam[row.path]])
    assert exams["images"].sum() == len(images)
    assert exams["images"].max() == 2
    scores, kappa = read_json(folder / "metrics_exams.json"), read_csv(folder / "kappa_exams.csv")
    assert scores["how"] == "max"
    assert scores["n"] == len(exams) == len(of_exam)
    assert (exams["y_pred"] == (exams["y_prob"] >= scores["threshold"])).all()
    assert kappa["body_part"].iloc[-1] == "overall"
    assert {"shoulder", "humerus"} <= set(kappa["body_part"])
    assert kappa["n"].iloc[:-1].sum() == kappa["n"].iloc[-1] == len(exams)


def test_pages_show_the_scores_by_exam(mura_study):
    exams = read_json(mura_study / "MobileNetV2" / "metrics_exams.json")
    count = f"{exams['n']} test exams in {exams['n_groups']} groups"
    for page in ("index.html", "MobileNetV2/03_evaluate_model.html", "MobileNetV2/model_card.html"):
        assert f"By exam, on {count}" in read_words(mura_study / page), page
    report = read_words(mura_study / "MobileNetV2" / "03_evaluate_model.html")
    assert "the largest of its images' probabilities" in report
    assert "Abnormal if any of its images is" in report
    assert "as the paper of MURA gives it" in report
    compared = pd.read_csv(mura_study / "exams.csv")
    assert compared["level"].tolist() == ["exams", "images"]
    assert f"{exams['n']} exams, {exams['n_groups']} groups" in read_words(
        mura_study / "04_compare_models.html"
    )
    assert "images that count belong to" in read_words(mura_study / "reporting_checklist.html")


def test_what_is_sent_names_no_exam(mura_study, home):
    out = export_study(mura_study, home / "sent-mura", anonymous=True).parent
    sent, own = read_csv(out / "manifest.csv"), read_csv(mura_study / "manifest.csv")
    assert sent["exam"].nunique() == own["exam"].nunique()
    assert sent["exam"].str.fullmatch("[0-9a-f]{16}").all()
    assert set(read_csv(out / "MobileNetV2" / "predictions_exams.csv")["path"]) <= set(sent["path"])
    for path in [*out.rglob("*.csv"), *out.rglob("*.json"), *out.rglob("*.html")]:
        assert not re.search(r"patient\d{5}", path.read_text()), path


def test_a_study_of_before_there_were_exams_still_opens(mura_study, home):
    copy = shutil.copytree(mura_study, home / "reports" / "earlier-mura")
    for file in ("metrics_exams.json", "predictions_exams.csv", "kappa_exams.csv"):
        (copy / "MobileNetV2" / file).unlink()
    write_csv(copy / "manifest.csv", read_csv(copy / "manifest.csv").drop(columns="exam"))
    card = write_model_card(copy, "MobileNetV2").read_text()
    assert "By exam" not in card
    assert "several views read together" in card
    assert "No exams are known" not in write_index(copy).read_text()
    assert "no exams are known" in write_checklist(copy).read_text()
    assert compare_exams(copy, ["MobileNetV2"])[0].empty
    shutil.rmtree(copy)
