"""When two pictures are one: inliers, correlation, detail and spread that suffice together."""

from typing import Any

from xray_helpers.same_source.registration import ENOUGH

_NEEDED = ((90, 0.40), (65, 0.60), (58, 0.93), (24, 0.98))  # from so many inliers on: correlation
_MANY, _RICH = 19, 300  # inliers, or points of either picture, with which corners are evidence
_IN_DETAIL = ((15, 0.97, 0.65, 0), (10, 0.98, 0.80, _RICH))  # inliers, correlation, that of detail, points
_NEAR = 2.2  # pixels of spread up to which they do
_RIGID = (
    (24, 0.93, 1.3),
    (24, 0.95, 1.5),
    (24, 0.97, 1.9),
    (40, 0.75, 1.3),
)  # inliers, correlation, spread: suffice
_LOOSE, _ENOUGH_OF_LOOSE = 1.7, 0.92  # spread from which on corners need to correlate more
RULES = (_NEEDED, _IN_DETAIL, _NEAR, _RIGID, ENOUGH, _MANY, _RICH, _LOOSE, _ENOUGH_OF_LOOSE)


def is_sure(evidence: dict[str, Any]) -> bool:
    """Return whether the correlation is high enough for the number of inliers.

    Measured on pairs of two sources: radiographs of hands of two people, and two exposures of one hand, share
    up to 52 inliers and then correlate up to .97; phantoms of two people up to 17; equal frames with text
    share up to 59, but are left out of the comparison (`registration.find_overlay`). Joints of two hands do
    not lie alike: where they correlate above .9, their matches are 1.8 pixels and more from one map, above
    .95 2.3 pixels; those of a blurred or noisy copy mostly below 1.5. Plain pictures have few points: there
    fine detail has to agree, which in two sources correlates up to .66, and then their matches are 3.3 pixels
    from the map. Registered onto each other, corners of two people's radiographs correlate up to .89, where
    matches are 2.5 pixels from the map, and up to .79 below 1.7 pixels; of phantoms, which are plain and
    share up to 18 inliers, up to .96.
    """
    inliers, alike = evidence["inliers"], evidence["correlation"]
    spread, detail = evidence["spread"], evidence["detail"]
    in_detail = spread <= _NEAR and any(
        inliers >= n and alike >= least and detail >= fine and evidence["points"] >= rich
        for n, least, fine, rich in _IN_DETAIL
    )
    rigid = any(inliers >= n and alike >= least and spread <= most for n, least, most in _RIGID)
    least = ENOUGH if spread <= _LOOSE else _ENOUGH_OF_LOOSE
    registered = evidence["registered"] >= least and (inliers >= _MANY or evidence["points"] >= _RICH)
    return in_detail or rigid or registered or reaches(_NEEDED, evidence)


def reaches(steps: tuple[tuple[int, float], ...], evidence: dict[str, Any]) -> bool:
    """Return whether inliers and correlation reach any of these steps."""
    return any(evidence["inliers"] >= points and evidence["correlation"] >= least for points, least in steps)
