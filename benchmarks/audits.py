"""The search for same-source images against other tools, on the same data; prints tables, for docs/audits.md.

    python benchmarks/audits.py DATA SOURCES.csv [--weights PLACE] [--others FOLDER] [--page docs/audits.md]
    python benchmarks/audits.py --quick

Sources, and how each is changed, are drawn with a seed; several give a table each. Each kind of change
(`changes.py`) is made of each drawn source; three kinds at a time stand in a pool with one original of every
source. The other tools are installed into a virtual environment in the folder `--others`, and run with their
defaults, with the first seed.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
import venv
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
import pandas as pd
from changes import CHANGES
from PIL import Image
from same_source import TRANSFORMS, place_of, search, vary
from same_source import judge as judge_pairs
from small import QUICK, write_set

COSINE = 0.93  # of MobileNetV2's features, from which on two pictures are taken as one
PACKAGES = ("imagededup", "cleanvision", "imagehash", "selfclean")
SAME = {"191": "222"}  # one radiograph, seen by looking: the whole of it, and a crop with a watermark
OURS, OF_ONE_SOURCE = "xray_helpers", "pairs of files of one source"
GOAL = 0.95  # recall of each kind
TITLE = """# The audit against other tools

Made by `python benchmarks/audits.py DATA SOURCES.csv --weights PLACE --others FOLDER --page docs/audits.md`.
Recall is the share of changed pictures (`benchmarks/changes.py`) that are grouped with their original; a
group is mixed when it holds two sources. Rules were set on changes of all sources that were drawn with other
seeds, and on pairs of two sources: the draws below were not seen before, the sources were. The other tools
ran with their defaults in an environment of their own. Views of one phantom patient count as one source:
they show the same fragments of bone, drawn alike, and a study groups them by patient anyway.
"""


def read_originals(data: Path, sources: Path) -> dict[str, np.ndarray]:
    """Return one readable picture of each source."""
    from xray_helpers.images.radiographs import UnreadableError, read_radiograph

    pictures = {}
    for row in pd.read_csv(sources).sort_values(["source", "path"]).itertuples():
        name = SAME.get(str(row.source), str(row.source))
        if name not in pictures:
            try:
                pictures[name] = read_radiograph(data / row.path).pixels
            except UnreadableError:
                continue
    return pictures


def make_pools(
    pictures: dict[str, np.ndarray], chosen: list[str], kinds: list[str], seed: int, folder: Path
) -> list[pd.DataFrame]:
    """Write the pools, a folder each; return their tables: path, source, kind, folder."""
    pools = []
    for start in range(0, len(kinds), 3):
        place = folder / f"pool{start // 3}"
        place.mkdir(parents=True)
        rows = [
            (f"{number:04d}.png", name, "", pixels) for number, (name, pixels) in enumerate(pictures.items())
        ]
        for kind in kinds[start : start + 3]:
            at = list(CHANGES).index(kind)
            for number, name in enumerate(chosen):
                rng = np.random.default_rng([seed, at, number])
                rows.append((f"c{at:02d}_{number:04d}.png", name, kind, CHANGES[kind](pictures[name], rng)))
        for path, _, _, pixels in rows:
            Image.fromarray(pixels).save(place / path, compress_level=1)
        table = pd.DataFrame([row[:3] for row in rows], columns=["path", "source", "kind"])
        pools.append(table.assign(folder=str(place)))
    return pools


def make_variants(
    pictures: dict[str, np.ndarray], chosen: list[str], combined: bool, seed: int, place: Path
) -> pd.DataFrame:
    """Write five variants of each chosen source, one transform each (B1) or all (B2), and all originals."""
    place.mkdir(parents=True)
    rows = []
    for number, (name, pixels) in enumerate(pictures.items()):
        Image.fromarray(pixels).save(place / f"{number:04d}.png", compress_level=1)
        rows.append((f"{number:04d}.png", name, ""))
        for variant in range(5 if name in chosen else 0):
            rng = np.random.default_rng([seed, number, variant, combined])
            kinds = TRANSFORMS if combined else (TRANSFORMS[rng.integers(len(TRANSFORMS))],)
            path = f"{number:04d}_{variant}.jpg"
            vary(pixels, kinds, rng, place / path)
            rows.append((path, name, "B2, all transforms" if combined else "B1, one transform"))
    return pd.DataFrame(rows, columns=["path", "source", "kind"]).assign(folder=str(place))


def group_pairs(table: pd.DataFrame, pairs: list) -> np.ndarray:
    """Return the group of each file when these pairs of names are joined."""
    from xray_helpers.data.manifest import connected_components

    names = pd.Index(table["path"])
    joined = [(names.get_loc(a), names.get_loc(b)) for a, b in pairs if a in names and b in names]
    return connected_components(len(names), np.array(joined, int).reshape(-1, 2))


def run_cosine(table: pd.DataFrame, weights: str) -> tuple[np.ndarray, float]:
    """Group by the cosine of MobileNetV2's features at 224 pixels; returns groups and seconds."""
    from xray_helpers.images.pixels import resize
    from xray_helpers.images.radiographs import read_radiograph
    from xray_helpers.models.backbones import embedder_weights
    from xray_helpers.models.features import build_embedder
    from xray_helpers.models.inference import choose_backend

    embed, _ = build_embedder(embedder_weights(weights), choose_backend(images=len(table)))
    if embed is None:
        return np.arange(len(table)), float("nan")
    embed(np.zeros((64, 224, 224), np.uint8))
    started = time.perf_counter()
    folder = Path(table["folder"].iloc[0])
    small = np.stack([resize(read_radiograph(folder / path).pixels, (224, 224)) for path in table["path"]])
    rows = np.concatenate([embed(small[start : start + 64]) for start in range(0, len(small), 64)])
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    i, j = np.nonzero(np.triu(rows @ rows.T, 1) >= COSINE)
    names = table["path"].to_numpy()
    return group_pairs(table, list(zip(names[i], names[j], strict=True))), time.perf_counter() - started


def run_others(table: pd.DataFrame, python: Path, failed: set[str]) -> dict[str, dict]:
    """Return what `audit_others.py` prints on the folder of a table, without the tools that failed."""
    script = Path(__file__).with_name("audit_others.py")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    command = [str(python), str(script), table["folder"].iloc[0], *sorted(failed)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(f"the other tools failed: {done.stderr[-800:]}")
    return json.loads(done.stdout.splitlines()[-1])


def install_others(folder: Path) -> Path:
    """Install the other tools into a virtual environment, unless they are there; return its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return python


def judge(table: pd.DataFrame, groups: np.ndarray) -> tuple[dict[str, float], int]:
    """Return recall by kind, and the number of mixed groups."""
    table = table.assign(group=groups)
    original = table[table["kind"] == ""].drop_duplicates("source").set_index("source")["group"]
    changed = table[table["kind"] != ""]
    hits = changed["group"] == changed["source"].map(original)
    sources = table.drop_duplicates(["group", "source"])["group"].value_counts()
    mixed = int((sources > 1).sum())
    if changed.empty and table["source"].duplicated().any():
        return {OF_ONE_SOURCE: judge_pairs(table, table["group"], table["source"])["recall"]}, mixed
    return hits.groupby(changed["kind"], sort=False).mean().to_dict(), mixed


def audit(sets: list[pd.DataFrame], weights: str, python: Path | None) -> tuple[pd.DataFrame, list[str]]:
    """Run every tool on every set; return the table of recall, and notes on versions and failures."""
    recall: dict[str, dict[str, float]] = {}
    totals: dict[str, dict[str, float]] = {}
    versions: dict[str, str] = {OURS: version("xray-helpers")}
    notes, failed = [], set()
    for table in sets:
        found, cost = search(table[["path"]], Path(table["folder"].iloc[0]), weights)
        known = found.notna().to_numpy()
        if not known.any():
            raise click.ClickException(f"no file of {table['folder'].iloc[0]} can be read")
        results = {OURS: (pd.factorize(found[known])[0], cost["seconds"], cost["unique"])}
        table = table[known].reset_index(drop=True)
        groups, seconds = run_cosine(table, weights)
        results[f"MobileNetV2 cosine >= {COSINE}"] = (groups, seconds, len(table))
        for tool, told in (run_others(table, python, failed) if python else {}).items():
            if "error" in told:
                failed.add(tool)
                note = f"{tool} was not run: {told['error']}"
                notes += [note] if note not in notes else []
            else:
                versions[tool] = told["version"]
                results[tool] = (group_pairs(table, told["pairs"]), told["seconds"], len(table))
        for tool, (groups, seconds, pictures) in results.items():
            by_kind, mixed = judge(table, groups)
            recall.setdefault(tool, {}).update(by_kind)
            total = totals.setdefault(tool, {"mixed groups": 0, "seconds": 0.0, "pictures": 0})
            for key, value in (("mixed groups", mixed), ("seconds", seconds), ("pictures", pictures)):
                total[key] += value
        by_kind, mixed = judge(table, results[OURS][0])
        told = {kind: round(value, 3) for kind, value in by_kind.items()}
        click.echo(f"{len(table)} files: {told}, {mixed} mixed, {cost['seconds']:.0f} s", err=True)
    page = pd.DataFrame(recall).map(lambda value: f"{value:.2f}")
    page.loc["mixed groups"] = {tool: f"{total['mixed groups']:.0f}" for tool, total in totals.items()}
    page.loc["unique pictures a second"] = {
        tool: f"{total['pictures'] / total['seconds']:.0f}" for tool, total in totals.items()
    }
    page.loc["seconds in all"] = {tool: f"{total['seconds']:.0f}" for tool, total in totals.items()}
    page.loc["version"] = versions
    return page.fillna(""), notes


def write_table(page: pd.DataFrame) -> str:
    """Return a table in Markdown."""
    rows = [
        ["", *page.columns],
        ["---"] * (page.shape[1] + 1),
        *page.reset_index().astype(str).to_numpy().tolist(),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def real_and_phantoms(data: Path, sources: Path, home: Path, phantoms: int) -> list[pd.DataFrame]:
    """Return tables of the whole sample and of phantoms; no file is an original, so that recall is not by
    kind. Views of one phantom patient are one source: they show the same fragments of bone, drawn alike.
    """
    from xray_helpers.synthetic.dataset import write_phantoms

    real = pd.read_csv(sources, dtype={"source": str}).assign(folder=str(home / "flat"), kind="")
    real["source"] = real["source"].replace(SAME)
    (home / "flat").mkdir()
    names = real["path"].str.replace("/", "__")  # some tools read no folders in folders
    for path, name in zip(real["path"], names, strict=True):
        shutil.copyfile(data / path, home / "flat" / name)  # links out of a folder are not followed
    real["path"] = names
    csv = write_phantoms(home / "phantoms", images=phantoms, planted=0, seed=11)
    made = pd.read_csv(csv)
    made = made.assign(source=made["patient"], folder=str(csv.parent), kind="")
    return [table[["path", "source", "kind", "folder"]] for table in (real, made)]


@click.command()
@click.argument("data", required=False)
@click.argument("sources", required=False)
@click.option("--weights", default="random", help="Of MobileNetV2.")
@click.option("--others", metavar="FOLDER", help="Of the other tools' environment, made if missing.")
@click.option("--count", default=80, show_default=True, help="Sources that are changed.")
@click.option("--seed", "seeds", default=[20261201, 20261202], show_default=True, multiple=True)
@click.option("--page", metavar="FILE.md", help="Also write the tables to a page.")
@click.option("--quick", is_flag=True, help=QUICK)
def main(data, sources, weights, others, count, seeds, page, quick) -> None:
    """Compare the audits."""
    home = Path(tempfile.mkdtemp(prefix="audits-"))
    os.environ["XRAY_HELPERS_ROOT"] = str(home)
    kinds, phantoms, weights = list(CHANGES), 300, place_of(weights)
    if quick:
        data, sources = map(str, write_set(home, 30))
        kinds, phantoms, count, seeds = ["rot90 + flip", "gamma", "negative"], 12, 5, seeds[:1]
    elif not (data and sources):
        raise click.UsageError("Say where the data and the table of their sources are; or --quick.")
    folder, table = Path(data).resolve(), Path(sources).resolve()
    pictures = read_originals(folder, table)
    python = install_others(Path(others).resolve()) if others else None
    text, notes = TITLE, []
    for seed in seeds:
        chosen = np.random.default_rng(seed).permutation(sorted(pictures)).tolist()[:count]
        place = home / str(seed)
        pools = make_pools(pictures, chosen, kinds, seed, place)
        pools += [
            make_variants(pictures, chosen, both, seed, place / f"B{both + 1}") for both in (False, True)
        ]
        text += f"\n## Changed pictures, seed {seed}\n\n"
        text += f"{len(chosen)} sources are changed, {len(pictures)} originals stand in each pool.\n"
        text += _add(*audit(pools, weights, python if seed == seeds[0] else None), notes)
    if not quick:
        wholes = real_and_phantoms(folder, table, home, phantoms)
        for name, whole in zip(("The real sample", "Phantoms"), wholes, strict=True):
            text += f"\n## {name}\n\n{len(whole)} files, none of them changed here.\n"
            found, new = audit([whole], weights, python)
            asked = found if name == "The real sample" else found.drop(index=OF_ONE_SOURCE, errors="ignore")
            text += _add(asked, new, notes)
    text += f"\n## Notes\n\n- Measured on {pd.Timestamp.now():%Y-%m-%d} with {os.cpu_count()} processors.\n"
    text += "".join(f"- {note}\n" for note in notes)
    click.echo(text)
    if page:
        Path(page).write_text(text, encoding="utf-8")
    shutil.rmtree(home)  # a gigabyte of pictures


def _add(table: pd.DataFrame, new: list[str], notes: list[str]) -> str:
    """Return a table, and what in it does not reach the goal; new notes are added to the others."""
    notes += [note for note in new if note not in notes]
    kinds = table.index.intersection(list(CHANGES))
    short = [f"{kind} ({table.loc[kind, OURS]})" for kind in kinds if float(table.loc[kind, OURS]) < GOAL]
    told = f"below the goal of {GOAL} are {', '.join(short)}" if short else f"every kind reaches {GOAL}"
    return f"\n{write_table(table)}\n" + (f"\nOf `{OURS}`, {told}.\n" if len(kinds) else "")


if __name__ == "__main__":
    main()
