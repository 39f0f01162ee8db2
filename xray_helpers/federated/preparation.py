"""What is done once before the first round: the features of each site, its folder, and the plan."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from xray_helpers.data.manifest import reading_of
from xray_helpers.data.parts import training_target, used_part
from xray_helpers.federated.client import UPPER, Site, initial_weights, plan_settings
from xray_helpers.federated.rounds import Plan
from xray_helpers.federated.sites import Sites, read_sites
from xray_helpers.images.radiographs import ImageFolder
from xray_helpers.models.backbones import get_backbone
from xray_helpers.models.cutting import Cut, cut_backbone
from xray_helpers.models.features import extract_features, open_extractor
from xray_helpers.models.head import prepare_tensorflow
from xray_helpers.models.inference import ForwardPass, choose_backend, study_backend
from xray_helpers.settings import SPLITS, InputError, Settings, current_classes
from xray_helpers.study.files import atomic_write, hash_of, read_csv, write_csv
from xray_helpers.study.folders import LOCAL, local_path, resolve_path, shareable, with_local_sources
from xray_helpers.study.tables import MANIFEST

IMAGES = "manifest.csv"  # in the folder of a site: its images and their parts
RUN, SITES = "rounds", "sites"  # in the folder of a federation: of the server, and a folder for each site


class Part(NamedTuple):
    """The images of a part of a site, as rows of `parts.used_part`, and their features (n, d)."""

    rows: pd.DataFrame
    x: np.ndarray

    @property
    def target(self) -> np.ndarray:
        """What is learnt of them."""
        return training_target(self.rows)


class Prepared(NamedTuple):
    """All sites, ready.

    Attributes
    ----------
    plan : Plan
    parts : dict
        By site and split a `Part`; in train with the copies of each source.
    places : list of Path
        The folder of each site, in the order of the plan's sites.
    upper : Path or None
        As of `client.Site`.
    """

    plan: Plan
    parts: dict[str, dict[str, Part]]
    places: list[Path]
    upper: Path | None = None


def prepare_study(
    study: Path, folder: Path, sites: Sites, model: str, settings: Settings, **options: Any
) -> Prepared:
    """Compute the features of all sites on this machine, and write the plan and the folder of each site.

    Parameters
    ----------
    study : Path
    folder : Path
        Of the federation.
    sites : Sites
    model : str
        The backbone.
    settings : Settings
        Of the study.
    **options
        Fields of `Plan`.
    """
    settings = with_local_sources(study, settings)
    weights = local_path(study, "weights", settings.weights)
    images = sum(map(len, sites.tables.values()))
    backend = study_backend(study, settings, images)
    parts, backbone, cut = _extract(sites, model, settings, weights, backend)
    names = tuple(sorted(parts))
    options["data"] = hash_of({site: list_images(sites.tables[site]) for site in names})
    plan, upper = _write_plan(folder / RUN, model, backbone, settings, _width(parts), names, cut, **options)
    tables = sites.tables
    places = [
        _write_site(folder / SITES / name, name, backbone, parts[name], upper, tables[name]) for name in names
    ]
    return Prepared(plan, parts, places, upper)


def prepare_plan(
    study: Path, folder: Path, names: Sequence[str], model: str, settings: Settings, **options: Any
) -> Plan:
    """Write the plan for sites whose images lie on other machines.

    Parameters
    ----------
    study, folder, model, settings, **options
        As for `prepare_study`.
    names : sequence of str
        Of the sites.
    """
    settings = with_local_sources(study, settings)
    weights = local_path(study, "weights", settings.weights)
    images = ImageFolder(study, **reading_of(settings.model_dump()))
    extractor, *_ = open_extractor(model, settings, weights, choose_backend("tensorflow"), images)
    cut = _cut(extractor, settings)
    backbone = _identify(model, settings, weights, images, cut)
    width = (cut.lower if cut else extractor).output_shape[-1]
    plan, _ = _write_plan(folder / RUN, model, backbone, settings, width, sorted(names), cut, **options)
    return plan


def _cut(extractor: Any, settings: Settings) -> Cut | None:
    """Return the backbone in two parts where the study fine-tunes."""
    return cut_backbone(extractor, settings.fine_tune_from) if settings.tuning_epochs else None


def _write_plan(
    folder: Path,
    model: str,
    backbone: str,
    settings: Settings,
    features: int,
    names: Sequence[str],
    cut: Cut | None,
    **options: Any,
) -> tuple[Plan, Path | None]:
    """Write the plan, and the upper part of a backbone that is cut; return both."""
    values = {key: value for key, value in shareable(settings).items() if key not in ("name", "data")}
    facts = {"settings": values, "classes": dict(current_classes()._asdict()), "features": features}
    facts |= {"seed": settings.seed, "sites": tuple(names), "trained": cut.trained if cut else ()}
    plan = Plan(model=model, backbone=backbone, **facts, **options)
    upper = _write_upper(folder, cut)
    return plan.write(folder, initial_weights(plan, upper)), upper


def _write_upper(folder: Path, cut: Cut | None) -> Path | None:
    if cut is None:
        return None
    with atomic_write(folder / UPPER) as partial:
        cut.upper.save(partial)
    return folder / UPPER


def prepare_site(plan: Plan, name: str, data: str, folder: Path, weights: str = "") -> str:
    """Read the images of one site on its own machine, draw its parts, and write its folder.

    Parameters
    ----------
    plan : Plan
    name : str
        One of the plan's sites.
    data : str
        A folder or CSV.
    folder : Path
    weights : str
        Of the backbone on this machine, where they are not published ones.

    Returns
    -------
    str
        What was found, in sentences.

    Raises
    ------
    InputError
        When the site is none of the plan's, cannot take part, or has another backbone.
    """
    plan.check_site(name)
    settings = plan_settings(plan)
    weights = weights or settings.weights
    if weights == LOCAL:
        raise InputError("The plan's backbone has weights of a file: give the same file with --weights.")
    prepare_tensorflow(settings)
    nothing = pd.DataFrame(columns=list(MANIFEST)).astype(MANIFEST)
    sites = read_sites({name: resolve_path("data", data)}, nothing, None, settings=settings)
    if name in sites.left_out:
        raise InputError(f"{name} cannot take part: {sites.left_out[name]}.")
    images = len(sites.tables[name])
    backend = choose_backend(settings.engine, settings.precision, images)
    parts, backbone, cut = _extract(sites, plan.model, settings, weights, backend)
    if backbone != plan.backbone:
        raise InputError(
            f"The backbone of {name} is not that of the plan: its weights are of another file, or pictures "
            "are read in another way; give the same file with --weights."
        )
    _write_site(folder, name, backbone, parts[name], _write_upper(folder, cut), sites.tables[name])
    counts = {split: len(parts[name][split].target) for split in SPLITS}
    told = ", ".join(f"{count} images for {split}" for split, count in counts.items())
    return " ".join([*sites.notes, f"{name} has {told}."])


def list_images(table: pd.DataFrame) -> list[list[str]]:
    """Return what decides the weights of a site: content, label and part of each image."""
    columns = table[["sha256", "label", "split"]].astype("string").fillna("")
    return sorted(columns.to_numpy().tolist())


def _identify(model: str, settings: Settings, weights: str, images: ImageFolder, cut: Cut | None) -> str:
    """Return a hash of the backbone, of how pictures reach it, and of where it is cut."""
    identity = get_backbone(model, settings).identify_weights(weights)
    how = (settings.img_size, settings.normalization, settings.border, images.how)
    # not by names, some of which Keras numbers in each process anew
    where = [[list(one.shape) for one in cut.upper.trainable_variables], len(cut.lower.layers)] if cut else []
    return hash_of("backbone", model, identity, how, *where)


def _extract(
    sites: Sites, model: str, settings: Settings, weights: str, backend: Any
) -> tuple[dict[str, dict[str, Part]], str, Cut | None]:
    """Return the features of each part of each site, the hash of the backbone, and where it is cut.

    Of a backbone that is cut they are the maps of its frozen lower part, float16.
    """
    first: ImageFolder = next(iter(sites.images.values()))
    extractor, forward, key = open_extractor(model, settings, weights, backend, first)
    cut, how = _cut(extractor, settings), {}
    if cut:
        forward, key = ForwardPass(cut.lower, backend), hash_of(key, cut.at)
        how = {"kind": "maps", "dtype": np.float16}
    found: dict[str, dict[str, Part]] = {}
    for site in sorted(sites.tables):
        found[site] = {}
        for split in SPLITS:
            rows = sites.part(site, split, copies=split == "train")
            at = rows.assign(path=rows["file"])
            x = extract_features(at, sites.images[site], forward, key, **how)[0][:]
            if not np.isfinite(x).all():
                raise InputError(f"{model} gives values that are not finite numbers for images of {site}.")
            found[site][split] = Part(rows, x)
    return found, _identify(model, settings, weights, first, cut), cut


def _width(parts: dict[str, dict[str, Part]]) -> int:
    return int(next(iter(parts.values()))["train"].x.shape[1])


def _write_site(
    folder: Path, name: str, backbone: str, parts: dict[str, Part], upper: Path | None, table: pd.DataFrame
) -> Path:
    write_csv(folder / IMAGES, table)
    train, validation, test = ((parts[split].x, parts[split].target) for split in SPLITS)
    Site(name, backbone, train, validation, upper, test).write(folder)
    return folder


def read_parts(site: Site, folder: Path) -> dict[str, Part]:
    """Return the parts of a site as `Prepared` has them, from what was read with its test part.

    Raises
    ------
    InputError
        When there is no test part, or the features are not those of the images that are listed.
    """
    if site.test is None:
        raise InputError(
            f"{folder} holds no test part, as it was prepared by an earlier version: prepare it again, with "
            "the same plan and images."
        )
    table = read_csv(folder / IMAGES)
    parts = {
        split: Part(used_part(table, split, copies=split == "train"), getattr(site, split)[0])
        for split in SPLITS
    }
    for split, part in parts.items():
        if not np.array_equal(part.target, getattr(site, split)[1]):
            raise InputError(
                f"The features of the {split} part in {folder} are not those of the images in its {IMAGES}: "
                "take the folder as `python -m xray_helpers site` wrote it."
            )
    return parts
