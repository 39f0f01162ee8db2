import pytest

from xray_helpers.runner.options import build_run_options, split_run_options
from xray_helpers.settings import PROFILES, InputError, Settings, build_settings, number_of
from xray_helpers.study.parameters import parse_assignments, read_notebook_settings, read_settings_file


def test_quick_profile_has_the_documented_defaults():
    settings = build_settings("quick")
    assert settings == Settings()
    assert (settings.img_size, settings.batch_size, settings.epochs) == ((224, 224), 16, 3)
    assert (settings.learning_rate, settings.dropout_rate, settings.use_subset) == (0.001, 0.5, 0.02)
    assert (settings.patience, settings.lr_factor, settings.min_lr, settings.seed) == (2, 0.5, 1e-7, 42)
    assert settings.models == ("InceptionV3", "ResNet50", "VGG16", "DenseNet121", "MobileNetV2")


def test_profiles():
    assert (build_settings("full").use_subset, build_settings("full").epochs) == (1.0, 50)
    assert (build_settings("smoke").use_subset, build_settings("smoke").epochs) == (0.01, 1)
    assert build_settings("eager").eager
    assert build_settings("demo").data == "phantoms"
    assert all(build_settings(profile).name == profile for profile in PROFILES)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 5}, ["'epoch'", "did you mean epochs?"]),
        ({"Learning_Rate": 1}, ["did you mean learning_rate?"]),
        ({"epochs": "many"}, ["epochs = 'many'"]),
        ({"epochs": 0}, ["epochs = 0", "greater than or equal to 1"]),
        ({"epochs": 2.5}, ["epochs = 2.5"]),
        ({"epochs": True}, ["epochs = True"]),
        ({"use_subset": 1.5}, ["use_subset = 1.5", "less than or equal to 1"]),
        ({"img_size": [16, 16]}, ["between 32 and 1024"]),
        ({"img_size": "a,b"}, ["img_size = 'a,b'"]),
        ({"img_size": None}, ["img_size = None"]),
        ({"models": []}, ["at least one model"]),
        ({"models": None}, ["models = None"]),
        ({"name": "../x"}, ["plain folder name"]),
        ({"name": ""}, ["plain folder name"]),
        ({"split": "random"}, ["split = 'random'"]),
        ({"patient_pattern": "("}, ["regular expression"]),
        ({"patient_pattern": "p"}, ["one group"]),
        ({"learning_rate": float("nan")}, ["learning_rate = nan"]),
    ],
)
def test_bad_values_are_refused_in_one_sentence(values, words):
    with pytest.raises(InputError) as caught:
        build_settings(**values)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_unknown_profile_names_the_nearest():
    with pytest.raises(InputError, match="did you mean smoke"):
        build_settings("smok")


@pytest.mark.parametrize("value", [(96, 64), [96, 64], "96,64", "96x64", "(96, 64)", "[96, 64]"])
def test_image_size_spellings(value):
    assert build_settings(img_size=value).img_size == (96, 64)


def test_one_side_means_a_square():
    assert build_settings(img_size=96).img_size == (96, 96) == build_settings(img_size="96").img_size


def test_assignments_are_read_as_yaml():
    values = parse_assignments(
        ["epochs=5", "min_lr=1e-7", "models=[VGG16, ResNet50]", "eager=true", "name=a=b"]
    )
    settings = build_settings(**values | {"name": "x"})
    assert (settings.epochs, settings.min_lr, settings.eager) == (5, 1e-7, True)
    assert settings.models == ("VGG16", "ResNet50")
    assert values["name"] == "a=b"
    with pytest.raises(InputError, match="name=value"):
        parse_assignments(["epochs"])


def test_settings_file(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("epochs: 7\nmodels: VGG16, MobileNetV2\n")
    assert build_settings(**read_settings_file(file)).models == ("VGG16", "MobileNetV2")
    file.write_text("- epochs")
    with pytest.raises(InputError, match="epochs: 5"):
        read_settings_file(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_settings_file(tmp_path / "missing.yaml")


def test_notebook_settings_check_every_parameters_cell():
    own = "name = 'x'\nepochs = 3  # help\nmodel = 'VGG16'"
    cells = [
        "",
        own,
        "# Parameters\nepochs = 4\n",
        "n = len(x)\nseeds = (1, 2)",
        "alpha = 0.05",
        "name = 'Ann'",
    ]
    namespace = {
        "In": cells,
        "name": "x",
        "epochs": 4,
        "model": "VGG16",
        "n": 9,
        "seeds": (1, 2),
        "alpha": 0.05,
    }
    settings = read_notebook_settings(namespace)
    assert settings.epochs == 4
    assert settings.models == ("VGG16",)
    with pytest.raises(InputError, match="did you mean epochs"):
        read_notebook_settings(namespace | {"In": [*cells, "# Parameters\nepochz = 4\n"], "epochz": 4})
    with pytest.raises(InputError, match="epochs = 'x'"):
        read_notebook_settings(namespace | {"epochs": "x"})


def test_a_misspelt_parameter_is_corrected_without_a_restart():
    wrong, right = "name = 'x'\nepohcs = 7\nseed = 1", "name = 'x'\nepochs = 7\nseed = 1"
    namespace = {"In": ["", wrong], "name": "x", "epohcs": 7, "seed": 1}
    with pytest.raises(InputError, match="did you mean epochs"):
        read_notebook_settings(namespace)
    assert read_notebook_settings(namespace | {"In": ["", wrong, "run()", right], "epochs": 7}).epochs == 7
    injected = ["# Parameters\nepohcs = 8\n", "# Parameters\nepochs = 8\n"]
    assert read_notebook_settings(namespace | {"In": ["", right, *injected], "epochs": 8}).epochs == 8


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("seed=010", 10),
        ("seed=08", 8),
        ("seed=1_000", 1000),
        ("name=010", "010"),
        ("name=089", "089"),
        ("name=1:30", "1:30"),
        ("name=1e3", "1e3"),
        ("name=true", "true"),
        ("name=null", "null"),
        ("eager=true", True),
        ("eager=no", False),
        ("learning_rate=1e-3", 0.001),
        ("fine_tune_from=0.5", 0.5),
        ("fine_tune_from=block_3", "block_3"),
        ("patient_pattern=(p[0-9]+): ", "(p[0-9]+):"),
        ("models=['VGG16', ResNet50]", ("VGG16", "ResNet50")),
        ("img_size=096", (96, 96)),
        ("weights=007.h5", "007.h5"),
        ("name='a b'", "a b"),
    ],
)
def test_values_take_the_type_of_their_parameter(pair, value, tmp_path):
    key = pair.partition("=")[0]
    assert getattr(build_settings(**parse_assignments([pair])), key) == value
    if ": " not in pair and value != "null":  # which means none in a file
        (tmp_path / "s.yaml").write_text(pair.replace("=", ": ", 1) + "\n")
        assert getattr(build_settings(**read_settings_file(tmp_path / "s.yaml")), key) == value


@pytest.mark.parametrize(
    "pair", ["seed=0x10", "seed=1:30", "epochs=true", "seed=", "learning_rate=0b1", "epochs=5 5"]
)
def test_what_is_no_value_of_a_parameter_is_refused(pair):
    with pytest.raises(InputError, match="cannot be used"):
        build_settings(**parse_assignments([pair]))


def test_yaml_values_keep_their_type_and_run_options_are_separated(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("on: slurm\nwalltime: 12:00:00\naccount: 1234\nname: 2024\nepochs: 5\neager: true\n")
    values, running = split_run_options(read_settings_file(path) | parse_assignments(["walltime=60"]))
    settings, options = build_settings(**values), build_run_options(**running)
    assert (settings.name, settings.epochs, settings.eager) == ("2024", 5, True)
    assert (options.on, options.walltime, options.account) == ("slurm", "60", "1234")
    assert build_run_options(**parse_assignments(["walltime=12:00:00"])).walltime == "12:00:00"
    for values, words in (
        ({"on": "mars"}, "it is here, slurm"),
        ({"jobs": -1}, "jobs = -1"),
        ({"job": 1}, "did you mean jobs"),
        ({"directives": ["-C avx"]}, "in full"),
        ({"walltime": "soon"}, "walltime"),
    ):
        with pytest.raises(InputError, match=words):
            build_run_options(**values)


def test_parameters_cells_are_known_by_their_names_whatever_they_hold():
    cell = "import os\nname = 'x'\ndata = 'phan' + 'toms'\nuse_subset = 1 / 2\nseed: int = 5\n"
    values = {"name": "x", "data": "phantoms", "use_subset": 0.5, "seed": 5}
    own = ["name = 'Anna'\nseed = 3", "# Parameters of my plot\nalpha = 0.05", "%matplotlib inline"]
    settings = read_notebook_settings({"In": ["", cell, *own], "alpha": 0.05} | values)
    assert (settings.name, settings.data, settings.use_subset, settings.seed) == ("x", "phantoms", 0.5, 5)
    wrong = "name = 'x'\ndata = 'd'\nsede = 5\nuse_subst = 1\nepocs = 3"
    with pytest.raises(InputError, match="There is no parameter"):
        read_notebook_settings(
            {"In": ["", wrong], "name": "x", "data": "d", "sede": 5, "use_subst": 1, "epocs": 3}
        )
    with pytest.raises(InputError, match="No cell of parameters was run"):
        read_notebook_settings({"In": ["", "x = 1"], "x": 1})


def test_a_count_of_one_is_no_plural():
    said = [number_of(count, "image names", "images name") for count in (0, 1, 2)]
    assert said == ["0 images name", "1 image names", "2 images name"]
    assert [number_of(count, "file") for count in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
