import subprocess
import sys

import pytest
from click.testing import CliRunner

from xray_helpers.cli import main


def run(*args):
    return CliRunner().invoke(main, list(args))


def test_bad_input_ends_in_one_sentence_and_status_2(root, tmp_path, make_images):
    make_images(tmp_path / "one" / "Fractured", 20, seed=1)
    (tmp_path / "empty").mkdir()
    make_images(tmp_path / "few" / "Fractured", 20, seed=2)
    make_images(tmp_path / "few" / "normal", 2, seed=3)
    make_images(tmp_path / "good" / "Fractured", 20, seed=4)
    make_images(tmp_path / "good" / "normal", 20, seed=5)
    (tmp_path / "reports" / "taken").mkdir(parents=True)
    (tmp_path / "reports" / "taken" / "thesis.txt").write_text("mine")
    good = ["--data", "good", "-p", "weights=random"]
    for args, words in [
        (["--data", "nowhere"], "There is no folder or CSV 'nowhere'"),
        (["--data", "empty"], "No images in empty"),
        (["--data", "one"], "none of class Non-Fractured"),
        (["--data", "few"], "Only 2 images"),
        ([*good, "-p", "epoch=3"], "did you mean epochs"),
        ([*good, "-p", "epochs=x"], "epochs = 'x'"),
        ([*good, "--models", "Exception"], "did you mean Xception"),
        ([*good, "--models", "InceptionV3", "-p", "img_size=64"], "at least 75"),
        ([*good, "--profile", "fast"], "There is no profile 'fast'"),
        ([*good, "-f", "missing.yaml"], "cannot be read"),
        ([*good, "--name", "taken"], "holds files that are no study"),
        (["--data", "good", "-p", "weights=nowhere"], "There are no weights at"),
    ]:
        result = run("run", *args)
        assert result.exit_code == 2, (args, result.output)
        assert words in result.output
        assert len(result.output.strip().splitlines()) == 1
    assert [p.name for p in (tmp_path / "reports").iterdir()] == ["taken"]


def test_a_study_of_other_settings_is_not_overwritten(root, tmp_path, make_images, monkeypatch):
    from xray_helpers.runner import preparation, series
    from xray_helpers.runner.options import RunOptions
    from xray_helpers.settings import InputError, build_settings
    from xray_helpers.study.files import read_json, write_json
    from xray_helpers.study.folders import open_study

    make_images(tmp_path / "good" / "Fractured", 20, seed=4)
    make_images(tmp_path / "good" / "normal", 20, seed=5)
    settings = build_settings(name="s", data="good", weights="random", models=["VGG16"])
    folder = open_study(preparation.prepare(settings))
    assert preparation.prepare(settings).name == "s"  # the same again
    with pytest.raises(InputError, match=r"other settings \(epochs\).*--overwrite"):
        preparation.prepare(settings.model_copy(update={"epochs": 9}))
    (tmp_path / "reads.csv").write_text("path,reader,call\nelsewhere.png,A,1\n")
    with pytest.raises(InputError, match="names a test image"):
        preparation.prepare(settings.model_copy(update={"readers": "reads.csv"}))
    (tmp_path / "other").symlink_to(tmp_path / "good")
    with pytest.raises(InputError, match=r"other settings \(data\)"):
        preparation.prepare(settings.model_copy(update={"data": "other"}))
    assert (folder / "study.json").exists()
    (folder / "study.yaml").write_text("funding: none")
    (folder / "ResNet50").mkdir()
    (folder / "ResNet50" / "02_train_model.ipynb").touch()
    steps = [{"name": "ResNet50/02_train_model", "writes": ["ResNet50/model.keras"]}]
    write_json(folder / "study.json", read_json(folder / "study.json") | {"steps": steps})
    other = preparation.prepare(settings.model_copy(update={"epochs": 9}), overwrite=True)
    series.build_plan(other, RunOptions(), other)
    assert (folder / "study.yaml").read_text() == "funding: none"  # what a person wrote stays
    assert not (folder / "ResNet50").exists()  # what a model left that the study no longer has


def test_a_parameter_given_as_an_option_is_hinted_at():
    for args, words in (
        (["--epochs", "5"], "write -p epochs=5."),
        (["--img-size=96"], "write -p img_size=96."),
        (["--step-limit"], "write -p step_limit=VALUE."),
    ):
        result = run("run", "--name", "x", *args)
        assert result.exit_code == 2
        assert words in result.output
    assert "No such option" in run("run", "--epoch", "5").output
    assert "No such option" in run("status", "--epochs", "5").output


def test_a_name_alone_goes_on_with_the_study_of_that_name(root, tmp_path, monkeypatch):
    from xray_helpers.runner import series
    from xray_helpers.settings import build_settings
    from xray_helpers.study.folders import open_study

    asked = []
    monkeypatch.setattr(
        series, "run_study", lambda settings, **_: asked.append(settings) or open_study(settings)
    )
    monkeypatch.setattr("xray_helpers.cli.studies._finish", lambda *_: None)
    (tmp_path / "mine").mkdir()
    settings = build_settings(
        name="first", data=str(tmp_path / "mine"), epochs=7, models=["VGG16"], weights="random"
    )
    open_study(settings)
    for args in (
        ["--name", "first", "--jobs", "1"],
        ["--name", "first", "--profile", "full"],
        ["--name", "new"],
    ):
        assert run("run", *args).exit_code == 0
    assert asked[0] == settings
    assert [one.epochs for one in asked] == [7, 50, 50]


def test_list_without_and_with_studies(root):
    from xray_helpers.settings import build_settings
    from xray_helpers.study.folders import open_study

    assert "No studies" in run("list").output
    open_study(build_settings(name="mine"))
    result = run("list")
    assert result.exit_code == 0
    assert "mine" in result.output
    assert "by hand" in result.output


def test_the_command_line_imports_no_tensorflow():
    code = "import sys, xray_helpers.cli, xray_helpers.runner.series; "
    code += "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("called", "name"),
    [("/usr/bin/xray-helpers", "xray-helpers"), ("xray_helpers/__main__.py", "python -m xray_helpers")],
)
def test_messages_name_the_command_as_it_was_called(root, monkeypatch, called, name):
    monkeypatch.setattr(sys, "argv", [called])
    assert f"start with `{name} demo`" in run("list").output


def test_the_last_line_of_a_failed_export_says_what_to_do(root, tmp_path, monkeypatch):
    from xray_helpers.export import page
    from xray_helpers.reports import pages
    from xray_helpers.runner import export
    from xray_helpers.study import folders

    monkeypatch.setattr(export, "run_export", lambda *_, **__: (tmp_path / "08.html", "Look there."))
    monkeypatch.setattr(page, "write_page", lambda *_: tmp_path / "page.html")
    monkeypatch.setattr(pages, "write_index", lambda _: None)
    monkeypatch.setattr(folders, "find_study", lambda _: tmp_path)
    result = run("export", "s", "VGG16", "--page")
    assert result.exit_code == 1
    lines = result.output.strip().splitlines()
    assert [line.rpartition("/")[2] for line in lines] == ["08.html", "page.html", "Error: Look there."]
