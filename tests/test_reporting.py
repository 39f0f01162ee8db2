import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from xray_helpers.reporting import escape, last_of_line, show_banner, show_table, study_banners, write_html


def notebook(path, outputs, tags=()):
    cell = new_code_cell("1 + 1", outputs=outputs, metadata={"tags": list(tags)})
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A question?"), cell]), path)
    return path


def test_text_is_shown_as_it_is():
    assert escape("<img src=x onerror=alert(1)> a_b*") == r"&lt;img src=x onerror=alert\(1\)&gt; a\_b\*"
    assert "<b>" not in show_table([{"path": "<b>x</b>"}]).data


def test_what_a_carriage_return_overwrites_is_gone():
    assert last_of_line("  0%\r 50%\r100%\ndone\n") == "100%\ndone\n"
    assert last_of_line("reading 5%\r          \r").strip() == ""


def test_streams_are_joined_and_pictures_described(tmp_path):
    pieces = [new_output("stream", name="stderr", text=t) for t in ("reading: 0%", "\r           \r")]
    picture = new_output("display_data", data={"image/png": "QUJD"}, metadata={"image/png": {"alt": 'a "curve"'}})
    page = write_html(notebook(tmp_path / "n.ipynb", [*pieces, picture])).read_text()
    assert "reading" not in page
    assert """alt='a "curve"'""" in page
    assert "data:image/png;base64,QUJD" in page
    assert "<title>A question?" in page


def test_a_failed_notebook_has_its_banner_and_folded_traceback(tmp_path):
    failure = new_output("error", ename="E", evalue="x", traceback=["\x1b[31mline one\x1b[0m"])
    page = write_html(notebook(tmp_path / "n.ipynb", [failure]), error="epochs <= 0").read_text()
    assert "epochs &lt;= 0" in page
    assert "<summary>Traceback</summary>" in page
    assert "line one" in page
    assert "\x1b" not in page


def test_papermills_own_error_cell_is_left_out(tmp_path):
    nb = new_notebook(cells=[new_markdown_cell("An Exception was encountered", metadata={"tags": ["papermill-error-cell-tag"]}),
                             new_markdown_cell("# Real")])  # fmt: skip
    nbformat.write(nb, tmp_path / "n.ipynb")
    assert "An Exception was encountered" not in write_html(tmp_path / "n.ipynb").read_text()


@pytest.fixture
def leaky():
    return pd.DataFrame({"path": list("abcd"), "group": ["1", "1", "2", "3"], "label": ["Fractured", "Non-Fractured"] * 2,
                         "split": ["train", "test", "validation", "test"], "status": "used"})  # fmt: skip


def test_banners_tell_leaks_random_weights_and_failures(leaky):
    study = {"settings": {"weights": "random", "normalization": "unit"}, "steps": [{"name": "x", "state": "failed"}]}
    kinds = study_banners(study, leaky)
    words = " ".join(text for _, text in kinds)
    assert kinds[0][0] == "bad"
    for word in (
        "The split leaks: 1 of 2",
        "steps failed: x",
        "Random weights",
        "normalization = unit",
        "test part is small",
    ):
        assert word in words
    assert "The split leaks" in show_banner("imagenet", manifest=leaky).data
    clean = leaky.assign(group=np.arange(4).astype(str))
    assert show_banner("imagenet", manifest=clean) is None


def test_a_border_that_predicts_the_label_is_called_a_shortcut():
    from xray_helpers.reporting import describe_border

    assert describe_border("keep", {"ci_low": 0.7}) == ""
    assert "the images hold a shortcut" in describe_border("only", {"ci_low": 0.6})
    assert "no shortcut was found" in describe_border("only", {"ci_low": 0.4})
    assert "compare with a study that keeps them" in describe_border("blank", {"ci_low": 0.4})
    assert describe_border("only", {"ci_low": None}) == ""
