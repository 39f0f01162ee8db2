"""Every page of a study in a real browser, with the network blocked."""

import os
import shutil
from urllib.parse import unquote, urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = pytest.mark.slow


def pages_of(folder):
    return sorted([*folder.glob("*.html"), *folder.glob("*/*.html")])


def check(page, path):
    assert page.complaints == [], path
    broken = page.evaluate(
        "[...document.images].filter(i => !i.complete || !i.naturalWidth || !i.alt).length"
    )
    assert broken == 0, path
    for link in page.evaluate("[...document.links].map(a => a.href)"):
        target = urlparse(link)
        assert target.scheme == "file", (path, link)
        assert os.path.exists(unquote(target.path)), (path, link)
        if target.fragment and unquote(target.path) == str(path):
            assert page.evaluate("id => !!document.getElementById(id)", unquote(target.fragment)), (
                path,
                link,
            )
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, (path, f"{wide} pixels wider than the window")


def test_every_page_asks_nobody_and_breaks_nowhere(study, failed_study, open_page):
    pages = [*pages_of(study), *pages_of(failed_study), study.parent / "index.html"]
    assert len(pages) > 20
    for path in pages:
        for width in (1280, 390):
            check(open_page(path, width), path)
        assert path.stat().st_size < 5_000_000


def test_every_kind_of_page_is_accessible_in_light_and_dark(study, failed_study, open_page):
    kinds = (
        "index.html",
        "01_data_exploration.html",
        "VGG16/02_train_model.html",
        "VGG16/03_evaluate_model.html",
        "04_compare_models.html",
        "reporting_checklist.html",
        "VGG16/model_card.html",
    )
    paths = [
        *(study / kind for kind in kinds),
        failed_study / "VGG16" / "02_train_model.html",
        failed_study / "index.html",
        study.parent / "index.html",
    ]
    for path in paths:
        for scheme in ("light", "dark"):
            found = Axe().run(open_page(path, scheme=scheme)).response["violations"]
            assert not [
                (v["id"], v["nodes"][0]["html"][:200])
                for v in found
                if v["impact"] in ("serious", "critical")
            ], path


def test_tables_sort_and_copy_by_keyboard(study, open_page):
    page = open_page(study / "index.html")
    heading = page.get_by_role("button", name="model", exact=True)
    heading.focus()
    page.keyboard.press("Enter")
    names = page.locator("td.model").all_inner_texts()
    assert names == sorted(names, key=str.lower)
    page.keyboard.press("Enter")
    assert page.locator("td.model").all_inner_texts() == names[::-1]
    copy = page.locator("button.copy").first
    copy.click()
    assert copy.inner_text() == "Copied"
    assert page.complaints == []


def test_code_is_folded_and_opens_by_one_click(study, open_page):
    page = open_page(study / "VGG16" / "03_evaluate_model.html")
    folded = page.locator("details.code").first
    assert not folded.locator("pre").is_visible()
    folded.locator("summary").click()
    assert folded.locator("pre").is_visible()


def test_what_a_name_holds_does_not_run(open_page, tmp_path, monkeypatch):
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    from xray_helpers.reports.display import show_table
    from xray_helpers.reports.html import write_html

    name = "<img src=x onerror=alert(1)><script>document.title='run'</script>{{7*7}}"
    outputs = [
        new_output("display_data", data={"text/html": show_table([{name: name}]).data}),
        new_output("display_data", data={"text/html": name, "text/plain": name}),
        new_output("stream", text=name),
    ]
    nbformat.write(new_notebook(cells=[new_code_cell("1", outputs=outputs)]), tmp_path / "n.ipynb")
    page = open_page(write_html(tmp_path / "n.ipynb"))
    assert page.complaints == []
    assert "run" not in page.title()
    assert "<img src=x onerror=alert(1)>" in page.inner_text("main")
    assert "{{7*7}}" in page.inner_text("main")


def test_the_summary_of_a_network_scrolls_on_a_telephone(open_page, tmp_path):
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    from xray_helpers.reports.html import write_html

    rows = ["<span>x</span>".ljust(40, "━") + "wide " * 12, "short"]  # as Keras prints through rich
    outputs = [
        new_output("display_data", data={"text/html": f"<pre style='white-space:pre'>{row}</pre>"})
        for row in rows
    ]
    nbformat.write(new_notebook(cells=[new_code_cell("1", outputs=outputs)]), tmp_path / "n.ipynb")
    page = open_page(write_html(tmp_path / "n.ipynb"), 390)
    wide, short = page.eval_on_selector_all(".scroll pre", "all => all.map(one => one.offsetHeight)")
    assert wide == short  # of one line
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_study_prints_to_pdf(failed_study, home):
    from xray_helpers.reports.pdf import write_pdfs

    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("no Chromium here: apt-get install chromium")
    written = write_pdfs(failed_study)
    try:
        assert failed_study / "index.pdf" in written
        assert all(path.read_bytes().startswith(b"%PDF") for path in written)
    finally:
        for path in written:
            path.unlink()
