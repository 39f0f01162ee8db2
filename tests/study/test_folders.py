import pytest

from xray_helpers.settings import InputError, Settings
from xray_helpers.study.folders import from_root, local_path, open_study, shareable


def test_places_on_this_machine_are_kept_apart(root):
    settings = Settings(name="s", data="/home/somebody/images", weights="../weights")
    folder = open_study(settings)
    assert shareable(settings)["data"] == shareable(settings)["weights"] == "local"
    assert "somebody" not in (folder / "study.json").read_text()
    assert local_path(folder, "data", "local") == "/home/somebody/images"
    assert local_path(folder, "weights", "local") == str(from_root("../weights"))
    assert local_path(folder, "weights", "random") == "random"
    other = open_study(Settings(name="t"))
    with pytest.raises(InputError, match="does not know where its data"):
        local_path(other, "data", "local")
