import tqdm
import tqdm.notebook

from xray_helpers.study.progress import progress


def test_a_person_in_jupyterlab_sees_a_bar_and_a_log_a_line(monkeypatch):
    kinds = []
    monkeypatch.setattr(tqdm.notebook, "tqdm", lambda *what, **_: kinds.append(what))
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    progress([1, 2], "reading")
    assert kinds == [([1, 2], "reading")]
    monkeypatch.delenv("JPY_SESSION_NAME")
    assert list(progress([1, 2], disable=True)) == [1, 2]
    assert len(kinds) == 1
