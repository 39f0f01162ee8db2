"""A synthetic patient's limb, whole or broken, and its radiograph, made by projection.

Bones are tubes of cortical shell around marrow, in a limb of soft tissue. Path lengths along parallel rays
are attenuated by Beer-Lambert, blurred by the focal spot, veiled by scatter, and counted with Poisson
noise; the picture is the windowed negative logarithm, as a digital detector shows it. Lengths are in
millimetres; attenuation (1/mm) is that of tissue near 55 keV.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FRACTURE_TYPES = ("hairline", "transverse", "oblique", "displaced", "comminuted")
SITES = ("proximal", "midshaft", "distal")
MU_SOFT, MU_CORTICAL, MU_MARROW, MU_CANCELLOUS = 0.0205, 0.060, 0.0195, 0.031
# body part: soft-tissue half-widths (lateral, depth) and bones (lateral and depth offset, shaft radius,
# radius of proximal and distal end, length), all in mm
ANATOMY = {
    "forearm": ((37, 30), [(-11, 0, 7.0, 9, 15, 235), (11, 3, 6.2, 13, 8, 240)]),
    "lower leg": ((54, 50), [(-9, -4, 13, 27, 20, 330), (24, 10, 6.0, 9, 10, 320)]),
    "upper arm": ((44, 42), [(0, 0, 11, 20, 24, 270)]),
    "thigh": ((68, 66), [(-4, 0, 14.5, 24, 32, 370)]),
}
PART_SHARES = (0.1, 0.15, 0.4, 0.35)  # one-bone limbs are easier for random features
FIELD_HEIGHT = 160.0  # mm of the detector


@dataclass
class Fracture:
    """A break of one bone: where along it (mm from its centre), its shape, and how the distal part moved."""

    kind: str
    bone: int
    along: float
    site: str
    slope: float  # of the fracture plane across the picture
    depth_slope: float  # of the plane along the ray: blurs the line
    gap: float
    shift: float  # lateral displacement, mm, in direction `azimuth`
    shorten: float  # overriding (positive) or distraction
    angle: float  # angulation, radians
    azimuth: float
    pieces: list = field(default_factory=list)  # comminuted: (along, across, shift, shift, turn), relative
    jag: np.ndarray = field(default_factory=lambda: np.zeros((4, 3)))


@dataclass
class Patient:
    """What all views of one person share."""

    body_part: str
    side: str
    scale: float
    bones: list
    soft: tuple
    density: float
    fracture: Fracture | None


def build_patient(rng: np.random.Generator, fracture_type: str | None) -> Patient:
    """Draw one person's limb; `fracture_type` is one of `FRACTURE_TYPES`, or None for intact bones."""
    part = str(rng.choice(list(ANATOMY), p=PART_SHARES))
    soft, bones = ANATOMY[part]
    scale = rng.uniform(0.88, 1.1)
    drawn = []
    for x, z, shaft, proximal, distal, length in bones:
        vary = rng.normal(1, 0.06, 4)
        drawn.append(
            {
                "x": x * vary[0],
                "z": z,
                "shaft": shaft * vary[1],
                "ends": (proximal * vary[2], distal * vary[3]),
                "length": length * rng.uniform(0.96, 1.04),
                "bow": rng.normal(0, 0.012, 2) * length,
                "cortex": rng.uniform(0.26, 0.42),
                "offset": rng.normal(0, 2),
            }
        )
    soft = (soft[0] * rng.uniform(0.9, 1.18), soft[1] * rng.uniform(0.9, 1.15))
    fracture = _draw_fracture(rng, fracture_type, drawn) if fracture_type else None
    return Patient(part, str(rng.choice(["L", "R"])), scale, drawn, soft, rng.uniform(0.85, 1.12), fracture)


def _draw_fracture(rng: np.random.Generator, kind: str, bones: list) -> Fracture:
    bone = int(rng.integers(len(bones)))
    shape = bones[bone]
    radius, length = shape["shaft"], shape["length"]
    site = int(rng.integers(3))
    along = length * (rng.uniform(-0.08, 0.08) + (-0.27, 0.0, 0.27)[site])
    sign = rng.choice([-1, 1], 4)
    fracture = Fracture(
        kind=kind,
        bone=bone,
        along=along,
        site=SITES[site],
        slope=sign[0] * rng.uniform(0.0, 0.25),
        depth_slope=rng.uniform(0.0, 0.06),
        gap=rng.uniform(0.5, 0.9),
        shift=0.0,
        shorten=0.0,
        angle=0.0,
        azimuth=rng.uniform(0, np.pi),
        jag=np.stack([rng.normal(0, 0.05, 4), rng.uniform(2, 16, 4), rng.uniform(0, 6.3, 4)], axis=1),
    )
    if kind in ("transverse", "oblique"):
        fracture.gap = rng.uniform(0.9, 2.0)
        fracture.shift = sign[1] * rng.uniform(0.05, 0.25) * radius
        fracture.angle = sign[2] * np.radians(rng.uniform(1, 5))
    if kind == "oblique":
        fracture.slope = sign[0] * rng.uniform(0.7, 1.6)
    if kind == "displaced":
        fracture.slope = sign[0] * rng.uniform(0.1, 1.1)
        fracture.shift = sign[1] * rng.uniform(0.9, 2.4) * radius
        fracture.shorten = radius * rng.uniform(-0.6, 1.6)
        fracture.angle = sign[2] * np.radians(rng.uniform(10, 36))
    if kind == "comminuted":
        fracture.gap = radius * rng.uniform(1.8, 3.2)
        fracture.shift = sign[1] * rng.uniform(0.3, 1.2) * radius
        fracture.angle = sign[2] * np.radians(rng.uniform(6, 24))
        count = int(rng.integers(4, 8))
        fracture.pieces = [
            (a, c, *rng.normal(0, 0.45, 2), rng.normal(0, 0.45))
            for a, c in zip(rng.uniform(-0.5, 0.5, count), rng.uniform(-0.9, 0.9, count), strict=True)
        ]
    return fracture


def render_view(
    rng: np.random.Generator, patient: Patient, size: tuple[int, int] = (256, 208)
) -> tuple[np.ndarray, tuple[int, int, int, int] | None]:
    """Expose one radiograph of a patient.

    Parameters
    ----------
    rng : numpy.random.Generator
        Of the view: projection angle, position, exposure, marker, collimation, noise.
    patient : Patient
    size : (int, int)
        Height and width in pixels.

    Returns
    -------
    pixels : ndarray of uint8, shape `size`, 0-255, bone bright
    box : (left, top, right, bottom) in pixels around the fracture, or None
    """
    height, width = size
    pitch = FIELD_HEIGHT / patient.scale / height * rng.uniform(0.94, 1.08)
    turn = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.15)  # about the limb's axis: frontal or lateral
    tilt = rng.normal(0, 0.12)
    span = pitch * height / 2
    fracture = patient.fracture
    centre_v = rng.uniform(-0.12, 0.12) * span
    if fracture is not None:  # the broken part is what the radiographer centres on, more or less
        centre_v = fracture.along + rng.uniform(-0.45, 0.45) * span
    else:
        centre_v = patient.bones[0]["length"] * rng.uniform(-0.3, 0.3)
    centre_u = rng.normal(0, 0.05) * span
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (columns - width / 2) * pitch, (rows - height / 2) * pitch
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    u, v = cos * x + sin * y + np.float32(centre_u), -sin * x + cos * y + np.float32(centre_v)

    attenuation = _soft_tissue(rng, patient, turn, u, v)
    grain = _grain(rng, size)
    for index, bone in enumerate(patient.bones):
        broken = fracture if fracture is not None and fracture.bone == index else None
        attenuation += patient.density * _bone(bone, broken, turn, u, v, grain)
    box = None
    if fracture is not None:
        box = _fracture_box(patient, turn, (centre_u, centre_v), tilt, pitch, size)
    return _expose(rng, attenuation, patient.side, pitch), box


def _soft_tissue(rng, patient, turn, u, v):
    lateral = np.hypot(patient.soft[0] * np.cos(turn), patient.soft[1] * np.sin(turn))
    depth = np.hypot(patient.soft[1] * np.cos(turn), patient.soft[0] * np.sin(turn))
    taper = 1 + rng.uniform(-0.0012, 0.0012) * v + 0.04 * np.sin(v / 45 + rng.uniform(0, 6))
    if patient.fracture is not None and patient.fracture.kind != "hairline":
        taper = taper + 0.05 * np.exp(-(((v - patient.fracture.along) / 30) ** 2))  # swelling
    chord = np.sqrt(np.maximum(1 - (u / (lateral * taper)) ** 2, 0)) * 2 * depth * taper
    muscle = 0.03 * np.sin(u / 9 + v / 60 + rng.uniform(0, 6)) + 0.03 * np.sin(
        u / 15 - v / 80 + rng.uniform(0, 6)
    )
    return (MU_SOFT * chord * (1 + muscle)).astype(np.float32)


def _grain(rng, size):
    noise = rng.standard_normal(size, dtype=np.float32)
    fine = cv2.GaussianBlur(noise, (0, 0), 1.0, sigmaY=1.8)
    coarse = cv2.GaussianBlur(noise, (0, 0), 3.0)
    return fine / fine.std() + coarse / coarse.std()


def _tube(bone, turn, u, v, grain):
    """Attenuation, beyond soft tissue, of rays through an unbroken bone at lateral `u` and axial `v`."""
    half = bone["length"] / 2
    t = np.clip(v / half, -1.0, 1.0)
    near, far = bone["ends"]
    flare = np.where(t < 0, near - bone["shaft"], far - bone["shaft"]) * np.abs(t) ** 5
    radius = bone["shaft"] + flare
    cap = np.where(t < 0, near, far) * 0.8
    beyond = np.clip((np.abs(v) - (half - cap)) / cap, 0, 1)
    radius = radius * np.sqrt(1 - beyond**2)
    d = u - _axis(bone, turn, v)
    outer = 2 * np.sqrt(np.maximum(radius**2 - d**2, 0))
    wall = bone["shaft"] * bone["cortex"] * (1 - 0.82 * np.abs(t) ** 3) + 0.35
    inner = 2 * np.sqrt(np.maximum(np.maximum(radius - wall, 0) ** 2 - d**2, 0))
    spongy = np.abs(t) ** 3
    marrow = MU_MARROW + (MU_CANCELLOUS - MU_MARROW) * spongy * (1 + 0.10 * grain)
    return (MU_CORTICAL - MU_SOFT) * (outer - inner) + (marrow - MU_SOFT) * inner


def _axis(bone, turn, v):
    t = v / bone["length"]
    bow = bone["bow"][0] * np.cos(turn) + bone["bow"][1] * np.sin(turn)
    return bone["x"] * np.cos(turn) - bone["z"] * np.sin(turn) + bow * (1 - 4 * t * t) + bone["offset"] * t


def _bone(bone, fracture, turn, u, v, grain):
    if fracture is None:
        return _tube(bone, turn, u, v, grain)
    pivot = _axis(bone, turn, fracture.along)
    facing = np.cos(turn - fracture.azimuth)
    blur = 0.25 + fracture.depth_slope * bone["shaft"]

    def surface(across, along):  # signed distance (mm, along the bone) from the fracture surface
        a, f, p = fracture.jag.T
        d = across - pivot
        jag = bone["shaft"] * sum(a[k] * np.sin(f[k] * d / bone["shaft"] + p[k]) for k in range(len(a)))
        return along - fracture.along - fracture.slope * d - jag

    def part(shift_u, shift_v, angle, inside):
        cos, sin = np.cos(angle), np.sin(angle)
        du, dv = u - pivot - shift_u, v - fracture.along - shift_v
        pu, pv = pivot + cos * du + sin * dv, fracture.along - sin * du + cos * dv
        return _tube(bone, turn, pu, pv, grain) * inside(pu, pv)

    def below(s):
        return 1 / (1 + np.exp(np.clip(s / blur * 2.2, -30, 30)))

    half_gap = fracture.gap / 2
    if fracture.kind == "hairline":  # a thin cleft that does not reach through: a share of the ray is lost
        cleft = np.exp(-((surface(u, v) / (fracture.gap * 0.8)) ** 2))
        reach = below((u - pivot) * np.sign(fracture.slope or 1) - 0.5 * bone["shaft"])
        return _tube(bone, turn, u, v, grain) * (1 - 0.55 * cleft * reach)
    total = part(0, 0, 0, lambda a, b: below(surface(a, b) + half_gap))
    total = total + part(
        fracture.shift * facing,
        -fracture.shorten,
        fracture.angle * facing,
        lambda a, b: below(half_gap - surface(a, b)),
    )
    for index, (_, _, shift_u, shift_v, angle) in enumerate(fracture.pieces):

        def cell(a, b, index=index):  # the piece's Voronoi cell within the gap
            zone = below(surface(a, b) - half_gap) * below(-half_gap - surface(a, b))
            seeds = [
                np.hypot((surface(a, b) / fracture.gap - s[0]) * 1.5, (a - pivot) / bone["shaft"] - s[1])
                for s in fracture.pieces
            ]
            others = np.min([s for k, s in enumerate(seeds) if k != index], axis=0)
            return zone * below((seeds[index] - others) * bone["shaft"])

        own = (shift_u * bone["shaft"], shift_v * bone["shaft"], angle)
        total = total + part(*own, cell)
    return total


def _fracture_box(patient, turn, centre, tilt, pitch, size):
    fracture, bone = patient.fracture, patient.bones[patient.fracture.bone]
    reach_v = fracture.gap / 2 + abs(fracture.slope) * bone["shaft"] + 3 + max(fracture.shorten, 0)
    reach_u = bone["shaft"] * 1.15 + 2 + 0.7 * abs(fracture.shift * np.cos(turn - fracture.azimuth))
    u = _axis(bone, turn, fracture.along) + reach_u * np.array([-1, 1, -1, 1]) - centre[0]
    v = fracture.along + reach_v * np.array([-1, -1, 1, 1]) - centre[1]
    x = (np.cos(tilt) * u - np.sin(tilt) * v) / pitch + size[1] / 2
    y = (np.sin(tilt) * u + np.cos(tilt) * v) / pitch + size[0] / 2
    left, right = np.clip([x.min(), x.max()], 0, size[1] - 1)
    top, bottom = np.clip([y.min(), y.max()], 0, size[0] - 1)
    return int(left), int(top), int(np.ceil(right)), int(np.ceil(bottom))


def _expose(rng, attenuation, side, pitch):
    size = attenuation.shape
    attenuation = attenuation + 3.0 * _marker(rng, side, size, attenuation)
    primary = cv2.GaussianBlur(np.exp(-attenuation), (0, 0), rng.uniform(0.45, 0.8))
    scatter = cv2.GaussianBlur(primary, (0, 0), 14 / pitch)
    signal = primary + rng.uniform(0.06, 0.14) * scatter
    photons = 10 ** rng.uniform(4.8, 5.4)
    counts = rng.normal(signal * photons, np.sqrt(signal * photons + 4))  # Poisson at these counts is normal
    density = -np.log(np.maximum(counts, 1) / photons)
    low = np.percentile(density, 1) + rng.uniform(-0.04, 0.1)
    high = np.percentile(density, 99.2) * rng.uniform(0.97, 1.05)
    shown = np.clip((density - low) / (high - low), 0, 1) ** rng.uniform(0.92, 1.12)
    shown = shown * rng.uniform(0.9, 1.0)
    return np.round(255 * shown * _collimation(rng, size)).astype(np.uint8)


def _collimation(rng, size):
    """1 inside the exposed field, 0 under the blades; two thirds of the views are open to the edge."""
    if rng.random() < 0.65:
        return np.ones(size, np.float32)
    height, width = size
    field = cv2.boxPoints(
        (
            (width * rng.uniform(0.47, 0.53), height * rng.uniform(0.47, 0.53)),
            (width * rng.uniform(0.82, 1.02), height * rng.uniform(0.86, 1.02)),
            float(rng.normal(0, 2.5)),
        )
    )
    mask = cv2.fillConvexPoly(np.zeros(size, np.float32), np.round(field).astype(np.int32), 1.0)
    return cv2.GaussianBlur(mask, (0, 0), 0.7)


def _marker(rng, side, size, attenuation):
    """The lead letter L or R, in the lightest of a few places: beside the limb where there is room."""
    height, width = size
    letter = int(rng.uniform(0.07, 0.1) * height)
    places = [(rng.integers(4, width - letter), rng.integers(4, height - 2 * letter)) for _ in range(12)]
    left, top = min(places, key=lambda p: attenuation[p[1] : p[1] + letter, p[0] : p[0] + letter].mean())
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    draw.text((left, top), side, fill=255, font=ImageFont.load_default(letter))
    return cv2.GaussianBlur(np.asarray(canvas, dtype=np.float32) / 255, (0, 0), 0.5)
