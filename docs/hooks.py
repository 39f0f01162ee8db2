"""What MkDocs asks of this folder: README and CONTRIBUTING as pages, and the studies of the gallery."""

import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md"}
STUDIES = ("demo", "demo-types", "elsewhere")  # as make gallery gathers them


def on_files(files: Files, config: dict) -> Files:
    """Add the two pages from above this folder, and the studies that make gallery has gathered."""
    for source, page in PAGES.items():
        text = re.sub(r"\]\(docs/", "](", (ROOT / source).read_text(encoding="utf-8"))
        for other, its_page in PAGES.items():
            text = text.replace(f"]({other})", f"]({its_page})")
        files.append(File.generated(config, page, content=text))
    for study in STUDIES:
        folder = ROOT / "reports" / f"{study}-to-send"
        if folder.is_dir():
            for path in filter(Path.is_file, folder.rglob("*")):
                place = f"gallery/{study}/{path.relative_to(folder).as_posix()}"
                files.append(File.generated(config, place, content=path.read_bytes()))
        else:
            text = "<p>This study is not there yet: <code>make gallery</code> runs it.</p>"
            files.append(File.generated(config, f"gallery/{study}/index.html", content=text))
    return files
