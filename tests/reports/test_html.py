import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from xray_helpers.reports.frame import clean_html, clean_table
from xray_helpers.reports.html import changed_parameters, clean_notebook, write_html
from xray_helpers.study.files import read_json, write_json

HOSTILE = "<img src=x onerror=alert(1)>"


def clean_stream(*pieces):
    """Return the texts of the outputs that `clean_notebook` leaves of the pieces of one stream."""
    outputs = [new_output("stream", text=piece) for piece in pieces]
    nb = new_notebook(cells=[new_code_cell("1", outputs=outputs)])
    clean_notebook(nb, None)
    return [output.text for output in nb.cells[0].outputs]


def test_text_that_a_carriage_return_overwrites_is_removed():
    assert clean_stream("  0%\r 50%", "\r100%\ndo", "ne\n") == ["100%\ndone\n"]
    assert clean_stream("reading 5%", "\r          \r") == []


def test_streams_are_joined_and_pictures_described(write_notebook):
    pieces = [new_output("stream", name="stderr", text=t) for t in ("reading: 0%", "\r           \r")]
    picture = new_output(
        "display_data", data={"image/png": "QUJD"}, metadata={"image/png": {"alt": 'a "curve"'}}
    )
    page = write_html(write_notebook(*pieces, picture)).read_text()
    assert "reading" not in page
    assert """alt='a "curve"'""" in page
    assert "data:image/png;base64,QUJD" in page
    assert "<title>A question?" in page


def test_a_failed_notebook_has_its_banner_and_folded_traceback(write_notebook):
    failure = new_output("error", ename="E", evalue="x", traceback=["\x1b[31mline one\x1b[0m"])
    page = write_html(write_notebook(failure), error="epochs <= 0").read_text()
    assert "epochs &lt;= 0" in page
    assert "<summary>Traceback</summary>" in page
    assert "line one" in page
    assert "\x1b" not in page


def test_papermills_own_error_cell_is_left_out(write_notebook):
    metadata = {"tags": ["papermill-error-cell-tag"]}
    cells = [
        new_markdown_cell("An Exception was encountered", metadata=metadata),
        new_markdown_cell("# Real"),
    ]
    assert "An Exception was encountered" not in write_html(write_notebook(cells=cells)).read_text()


def test_nothing_in_a_notebook_runs_or_loads_an_address(write_notebook):
    data = [
        {"text/html": f"<p onclick='x()'>{HOSTILE}</p><script>alert(2)</script>"},
        {"text/html": "<style>p {}</style><iframe src='https://a.example'></iframe>"},
        {"text/markdown": "![x](https://a.example/b.png) [y](javascript:alert(3)) {{7*7}}"},
        {"image/svg+xml": "<svg onload='alert(4)'></svg>"},
    ]
    outputs = [new_output("display_data", data=each) for each in data]
    outputs.append(new_output("stream", text="\x1b[38;2;1;2;3mcoloured\x1b[0m <b>"))
    cells = [
        new_markdown_cell(f"# {HOSTILE}"),
        new_markdown_cell("## <script>alert(5)</script>&{{7*7}}"),
        new_code_cell("1", outputs=outputs),
    ]
    page = write_html(write_notebook(cells=cells)).read_text()
    assert page.count("<script") == 1  # ours
    assert not re.findall(r"<[^>]*\s(?:on\w+|style)=", page.replace("<style>", ""))
    assert not re.findall(r'(?:src)="(?!data:)', page)
    assert "javascript:" not in re.sub(r">[^<]*<", "><", page)
    assert "<iframe" not in page
    assert "{{7*7}}" in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "default-src 'none'" in page.replace("&#39;", "'")


def test_tables_and_structure_survive_cleaning():
    table = (
        '<table class="dataframe"><thead><tr><th '
        'scope="col">a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>'
    )
    assert clean_html(table) == table
    assert "<td>0.6 <small>(0.4 to 0.7)</small></td>" in clean_table(
        table.replace("<td>1<", "<td>0.6 (0.4 to 0.7)<")
    )


def test_widgets_appear_as_their_picture_or_a_sentence(write_notebook):
    view = {
        "application/vnd.jupyter.widget-view+json": {"model_id": "x"},
        "text/plain": "VBox()",
        "text/html": "<b>no</b>",
    }
    alt = {"image/png": {"alt": "threshold against sensitivity"}}
    outputs = [
        new_output("display_data", data=view | {"image/png": "QUJD"}, metadata=alt),
        new_output("display_data", data=view),
    ]
    page = write_html(write_notebook(*outputs)).read_text()
    assert 'src="data:image/png;base64,QUJD"' in page
    assert 'alt="threshold against sensitivity"' in page
    assert "An interactive element: open the notebook" in page
    assert "VBox" not in page


def test_radiographs_can_be_left_out(write_notebook):
    outputs = [
        new_output(
            "display_data",
            data={"image/png": "QUJD"},
            metadata={"alt": "eight radiographs", "radiographs": True},
        ),
        new_output("display_data", data={"image/png": "REVG"}, metadata={"image/png": {"alt": "a curve"}}),
    ]
    path = write_notebook(*outputs)
    page = write_html(path, images=False).read_text()
    assert "QUJD" not in page
    assert "Radiographs are left out of this report. eight radiographs" in page
    assert "REVG" in page
    assert "QUJD" in write_html(path).read_text()


def test_a_report_opens_with_its_title_block(make_study, write_notebook):
    study = make_study(epochs=7)
    text = "VGG16 has AUROC 0.8 (0.7 to 0.9). It is better than chance."
    cells = [
        new_markdown_cell("# How good?\n\nReads x."),
        new_markdown_cell("## One"),
        new_markdown_cell("## Two & more"),
        new_markdown_cell("## Three"),
        new_code_cell("x", outputs=[new_output("display_data", data={"text/markdown": text})]),
    ]
    notebook = write_notebook(cells=cells, path=study / "VGG16" / "03_evaluate_model.ipynb")
    page = write_html(notebook).read_text()
    assert '<p class="verdict">VGG16 has AUROC 0.8 (0.7 to 0.9).</p>' in page
    assert "<dt>model</dt><dd>VGG16</dd>" in page
    assert "<dd>synthetic phantoms</dd>" in page
    assert "epochs = 7" in page
    assert page.count("<h1>") == 1
    anchors = re.findall(r'<li><a href="#([^"]+)">', page)
    assert len(anchors) == 3
    assert all(f'id="{anchor}"' in page for anchor in anchors)
    assert changed_parameters(read_json(study / "study.json")["settings"]) == {"epochs": 7}


def test_paths_of_this_machine_are_replaced_by_words(tmp_path, monkeypatch):
    home = tmp_path / "home" / "anna.meier"
    monkeypatch.setenv("HOME", str(home))
    study = tmp_path / "study"
    write_json(study / "local.json", {"data": "/mnt/ward 7/scans", "weights": "imagenet"})
    text = f"\x1b[32m{home}/x.py and /mnt/ward 7/scans/a.png, but /mnt/ward 7/scans2"
    nb = new_notebook(
        cells=[new_code_cell("1", outputs=[new_output("stream", text=text)])],
        metadata={"papermill": {"input_path": "/x", "duration": 1}},
    )
    clean_notebook(nb, study)
    assert nb.cells[0].outputs[0].text == "\x1b[32m[home]/x.py and [data]/a.png, but /mnt/ward 7/scans2"
    assert nb.metadata.papermill == {"duration": 1}


def test_messages_that_tensorflow_writes_at_its_start_are_removed():
    text = (
        "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
        "I0000 00:00:1795622351.112981   32683 cudart_stub.cc:31] Could not find cuda drivers on your "
        "machine.\n"
        "WARNING: mine\n"
    )
    assert clean_stream(text) == ["WARNING: mine\n"]


@pytest.mark.parametrize(("has_model", "title"), [(True, "s · VGG16"), (False, "s")])
def test_a_persons_own_report_names_the_model_not_the_folder(make_study, write_notebook, has_model, title):
    own = new_code_cell('model = "MobileNetV2"  # the backbone', metadata={"tags": ["parameters"]})
    injected = new_code_cell('# Parameters\nmodel = "VGG16"\n', metadata={"tags": ["injected-parameters"]})
    cells = [new_markdown_cell("# A question?"), *([own, injected] if has_model else [])]
    page = write_html(write_notebook(cells=cells, path=make_study() / "lab" / "mine.ipynb")).read_text()
    assert f"A question? · {title}</title>" in page
    assert "· lab" not in page
