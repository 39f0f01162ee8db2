"""Federations: sites that train together, each with images of its own; their names and places."""

from collections.abc import Mapping
from pathlib import Path

from xray_helpers.settings import InputError
from xray_helpers.study.external import check_set_name
from xray_helpers.study.files import read_json, write_json
from xray_helpers.study.folders import FEDERATED, LOCAL, resolve_path


def federation_folder(study: Path, name: str) -> Path:
    """Return the folder of a federation in a study, existing or not."""
    return study / FEDERATED / check_set_name(name)


def federation_places(study: Path, name: str, sites: Mapping[str, str] | str = LOCAL) -> dict[str, str]:
    """Return where the sites of a federation lie on this machine; what is given is kept in ``local.json``.

    Parameters
    ----------
    study : Path
    name : str
        Of the federation.
    sites : mapping of str to str, or 'local'
        By site a folder, a CSV or phantoms; ``local``: as recorded.

    Returns
    -------
    dict
        Empty where a column of the study names the sites.

    Raises
    ------
    InputError
        When other places are recorded, or a site has a name that no folder can have.
    """
    local = read_json(study / "local.json", default={})
    known = local.get(FEDERATED, {})
    if sites == LOCAL:
        return known.get(name, {})
    places = {check_set_name(site): resolve_path("data", place) for site, place in dict(sites).items()}
    if name in known and known[name] != places:
        raise InputError(
            f"{name!r} is another federation of {study.name} already: give this one another --name."
        )
    if name not in known:
        write_json(study / "local.json", local | {FEDERATED: known | {name: places}})
    return places
