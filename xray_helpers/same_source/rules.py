"""When two pictures are one: inliers, correlation, detail and spread that suffice together."""

from typing import Any

from xray_helpers.same_source.registration import ENOUGH

_NEEDED = ((90, 0.40), (65, 0.60), (58, 0.93), (24, 0.98))  # from so many inliers on: correlation
_IN_DETAIL = ((15, 0.97, 0.65), (10, 0.98, 0.80))  # inliers, correlation, and that of detail: suffice too
_RIGID = (
    (24, 0.90, 1.3),
    (24, 0.95, 1.5),
    (24, 0.97, 1.9),
    (40, 0.75, 1.3),
)  # inliers, correlation, spread: suffice
_MANY, _ENOUGH_OF_FEW = 19, 0.93  # inliers; correlation of corners that fewer need
RULES = (_NEEDED, _IN_DETAIL, _RIGID, ENOUGH, _MANY, _ENOUGH_OF_FEW)


def is_sure(evidence: dict[str, Any]) -> bool:
    """Return whether the correlation is high enough for the number of inliers.

    Measured on pairs of two sources: radiographs of hands of two people, and two exposures of one hand, share
    up to 52 inliers and then correlate up to .97; phantoms of two people up to 17; equal frames with text
    share up to 59, but are left out of the comparison (`registration.find_overlay`). Joints of two hands do
    not lie alike: where they correlate above .9, their matches are 1.8 pixels and more from one map, above
    .95 2.3 pixels; those of a blurred or noisy copy mostly below 1.5. Plain pictures have few points: there
    fine detail has to agree, which in two sources correlates up to .58. Registered onto each other, corners
    of two people's hands correlate up to .80, of two exposures of one hand up to .69; plain phantoms, which
    share up to 18 inliers, up to .92.
    """
    points, alike = evidence["inliers"], evidence["correlation"]
    in_detail = any(
        points >= n and alike >= least and evidence["detail"] >= fine for n, least, fine in _IN_DETAIL
    )
    rigid = any(points >= n and alike >= least and evidence["spread"] <= most for n, least, most in _RIGID)
    enough = ENOUGH if points >= _MANY else _ENOUGH_OF_FEW
    return in_detail or rigid or evidence["registered"] >= enough or reaches(_NEEDED, evidence)


def reaches(steps: tuple[tuple[int, float], ...], evidence: dict[str, Any]) -> bool:
    """Return whether inliers and correlation reach any of these steps."""
    return any(evidence["inliers"] >= points and evidence["correlation"] >= least for points, least in steps)
