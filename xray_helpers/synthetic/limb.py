"""A synthetic patient's limb, intact or fractured, and its projected radiograph.

Bones are tubes of cortical bone around marrow, in a limb of soft tissue. Path lengths along parallel rays are
attenuated by the Beer-Lambert law, blurred by the focal spot, veiled by scatter, and counted with Poisson
noise. The picture is the windowed negative logarithm, as a digital detector shows it. Lengths are in
millimetres, attenuation coefficients (1/mm) are those of tissue near 55 keV.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

FRACTURE_TYPES = ("hairline", "transverse", "oblique", "displaced", "comminuted")
SITES = ("proximal", "midshaft", "distal")
MU_SOFT, MU_CORTICAL, MU_MARROW, MU_CANCELLOUS = 0.0205, 0.060, 0.0195, 0.031
# per body part: half-widths of the soft tissue (lateral, depth); per bone: lateral and depth offset, radii of
# shaft, proximal and distal end, length; all in mm
ANATOMY = {
    "forearm": ((37, 30), [(-11, 0, 7.0, 9, 15, 235), (11, 3, 6.2, 13, 8, 240)]),
    "lower leg": ((54, 50), [(-9, -4, 13, 27, 20, 330), (24, 10, 6.0, 9, 10, 320)]),
    "upper arm": ((44, 42), [(0, 0, 11, 20, 24, 270)]),
    "thigh": ((68, 66), [(-4, 0, 14.5, 24, 32, 370)]),
}
PART_SHARES = (0.1, 0.15, 0.4, 0.35)  # mostly limbs of one bone, which are easier for random features
FIELD_HEIGHT = 160.0  # of the detector, mm


class Device(NamedTuple):
    """How a department takes its radiographs; pairs are the ends of a uniform distribution.

    Attributes
    ----------
    soft, bone : float
        Attenuation of soft tissue, and of bone beyond it, as factors of that near 55 keV; harder spectra are
        attenuated less.
    blur : (float, float)
        Of the focal spot, pixels.
    scatter : (float, float)
        Share of the primary radiation.
    photons : (float, float)
        Logarithm (base 10) of the photons a pixel.
    gamma : (float, float)
        Of the display; above 1, pictures are darker.
    open_field : float
        Share of views without visible collimation.
    field : (float, float)
        Sides of the collimated field, as shares of the picture's.
    """

    soft: float = 1.0
    bone: float = 1.0
    blur: tuple[float, float] = (0.45, 0.8)
    scatter: tuple[float, float] = (0.06, 0.14)
    photons: tuple[float, float] = (4.8, 5.4)
    gamma: tuple[float, float] = (0.92, 1.12)
    open_field: float = 0.65
    field: tuple[float, float] = (0.82, 1.02)


DEVICE = Device()


@dataclass
class Fracture:
    """A fracture of one bone: its location and shape, and how the distal part moved (mm, radians)."""

    kind: str
    bone: int
    along: float  # from the bone's centre
    site: str
    slope: float  # of the fracture plane across the picture
    depth_slope: float  # of the plane along the ray, which blurs the line
    gap: float
    azimuth: float  # direction of `shift` and `angle`
    jag: np.ndarray  # amplitude, frequency and phase of four waves of the fracture line
    shift: float = 0.0  # lateral displacement
    shorten: float = 0.0  # overriding (positive) or distraction (negative)
    angle: float = 0.0  # angulation
    pieces: list = field(
        default_factory=list
    )  # comminuted: (along, across, shift_u, shift_v, angle), relative


@dataclass
class Bone:
    """One bone; lengths in mm."""

    x: float  # lateral offset
    z: float  # offset in depth
    shaft: float  # radius
    ends: tuple[float, float]  # proximal and distal radius
    length: float
    bow: np.ndarray  # in both directions
    cortex: float  # wall thickness as a share of the radius
    offset: float  # lateral tilt: offset per length


@dataclass
class Patient:
    """What all views of one person have in common."""

    body_part: str
    side: str
    scale: float
    bones: list[Bone]
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
        bone = Bone(
            x=x * vary[0],
            z=z,
            shaft=shaft * vary[1],
            ends=(proximal * vary[2], distal * vary[3]),
            length=length * rng.uniform(0.96, 1.04),
            bow=rng.normal(0, 0.012, 2) * length,
            cortex=rng.uniform(0.26, 0.42),
            offset=rng.normal(0, 2),
        )
        drawn.append(bone)
    soft = (soft[0] * rng.uniform(0.9, 1.18), soft[1] * rng.uniform(0.9, 1.15))
    fracture = _draw_fracture(rng, fracture_type, drawn) if fracture_type else None
    return Patient(part, str(rng.choice(["L", "R"])), scale, drawn, soft, rng.uniform(0.85, 1.12), fracture)


def _draw_fracture(rng: np.random.Generator, kind: str, bones: list[Bone]) -> Fracture:
    bone = int(rng.integers(len(bones)))
    radius, length = bones[bone].shaft, bones[bone].length
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
    rng: np.random.Generator, patient: Patient, size: tuple[int, int] = (256, 208), device: Device = DEVICE
) -> tuple[np.ndarray, tuple[int, int, int, int] | None]:
    """Return one radiograph of a patient.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws projection angle, position, exposure, marker, collimation and noise.
    patient : Patient
    size : (int, int)
        Height and width in pixels.
    device : Device

    Returns
    -------
    pixels : ndarray of uint8, shape `size`, 0-255
        Bone is bright.
    box : (int, int, int, int) or None
        Left, top, right and bottom of the fracture, in pixels.
    """
    height, width = size
    pitch = FIELD_HEIGHT / patient.scale / height * rng.uniform(0.94, 1.08)
    turn = rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.15)  # about the limb's axis: frontal or lateral
    tilt = rng.normal(0, 0.12)
    span = pitch * height / 2
    fracture = patient.fracture
    rng.uniform()  # not used; without it, all pictures would change
    if fracture is not None:  # the radiographer roughly centres on the fracture
        centre_v = fracture.along + rng.uniform(-0.45, 0.45) * span
    else:
        centre_v = patient.bones[0].length * rng.uniform(-0.3, 0.3)
    centre_u = rng.normal(0, 0.05) * span
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = (columns - width / 2) * pitch, (rows - height / 2) * pitch
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    u, v = cos * x + sin * y + np.float32(centre_u), -sin * x + cos * y + np.float32(centre_v)

    attenuation = device.soft * _soft_tissue(rng, patient, turn, u, v)
    texture = _trabecular_texture(rng, size)
    density = patient.density * device.bone
    for index, bone in enumerate(patient.bones):
        if fracture is not None and fracture.bone == index:
            attenuation += density * _fractured_bone(bone, fracture, turn, u, v, texture)
        else:
            attenuation += density * _intact_bone(bone, turn, u, v, texture)
    box = _fracture_box(patient, turn, (centre_u, centre_v), tilt, pitch, size) if fracture else None
    return _expose(rng, attenuation, patient.side, pitch, device), box


def _soft_tissue(rng, patient, turn, u, v):
    """Return the attenuation of the limb's soft tissue along each ray."""
    lateral = np.hypot(patient.soft[0] * np.cos(turn), patient.soft[1] * np.sin(turn))
    depth = np.hypot(patient.soft[1] * np.cos(turn), patient.soft[0] * np.sin(turn))
    taper = 1 + rng.uniform(-0.0012, 0.0012) * v + 0.04 * np.sin(v / 45 + rng.uniform(0, 6))
    if patient.fracture is not None and patient.fracture.kind != "hairline":
        taper = taper + 0.05 * np.exp(-(((v - patient.fracture.along) / 30) ** 2))  # swelling
    chord = np.sqrt(np.maximum(1 - (u / (lateral * taper)) ** 2, 0)) * 2 * depth * taper
    muscle = 0.03 * np.sin(u / 9 + v / 60 + rng.uniform(0, 6))
    muscle = muscle + 0.03 * np.sin(u / 15 - v / 80 + rng.uniform(0, 6))
    return (MU_SOFT * chord * (1 + muscle)).astype(np.float32)


def _trabecular_texture(rng, size):
    noise = rng.standard_normal(size, dtype=np.float32)
    fine = cv2.GaussianBlur(noise, (0, 0), 1.0, sigmaY=1.8)
    coarse = cv2.GaussianBlur(noise, (0, 0), 3.0)
    return fine / fine.std() + coarse / coarse.std()


def _intact_bone(bone, turn, u, v, texture):
    """Return the attenuation, beyond that of soft tissue, of rays at lateral `u` and axial `v`."""
    half = bone.length / 2
    t = np.clip(v / half, -1.0, 1.0)
    proximal, distal = bone.ends
    radius = bone.shaft + np.where(t < 0, proximal - bone.shaft, distal - bone.shaft) * np.abs(t) ** 5
    cap = np.where(t < 0, proximal, distal) * 0.8
    beyond = np.clip((np.abs(v) - (half - cap)) / cap, 0, 1)
    radius = radius * np.sqrt(1 - beyond**2)
    d = u - _find_axis(bone, turn, v)
    outer = 2 * np.sqrt(np.maximum(radius**2 - d**2, 0))
    wall = bone.shaft * bone.cortex * (1 - 0.82 * np.abs(t) ** 3) + 0.35
    inner = 2 * np.sqrt(np.maximum(np.maximum(radius - wall, 0) ** 2 - d**2, 0))
    cancellous = np.abs(t) ** 3
    marrow = MU_MARROW + (MU_CANCELLOUS - MU_MARROW) * cancellous * (1 + 0.10 * texture)
    return (MU_CORTICAL - MU_SOFT) * (outer - inner) + (marrow - MU_SOFT) * inner


def _find_axis(bone, turn, v):
    """Return the lateral position of a bone's axis."""
    t = v / bone.length
    bow = bone.bow[0] * np.cos(turn) + bone.bow[1] * np.sin(turn)
    return bone.x * np.cos(turn) - bone.z * np.sin(turn) + bow * (1 - 4 * t * t) + bone.offset * t


def _fractured_bone(bone, fracture, turn, u, v, texture):
    """Return the attenuation of a fractured bone: its two parts and any pieces, each moved and cut off."""
    pivot = _find_axis(bone, turn, fracture.along)
    facing = np.cos(turn - fracture.azimuth)
    blur = 0.25 + fracture.depth_slope * bone.shaft

    def distance(across, along):
        """Return the signed distance from the fracture surface, in mm along the bone."""
        d = across - pivot
        waves = sum(a * np.sin(f * d / bone.shaft + p) for a, f, p in fracture.jag)
        return along - fracture.along - fracture.slope * d - bone.shaft * waves

    def soft_step(d):
        """Return a blurred step from 1 at negative to 0 at positive distances."""
        return 1 / (1 + np.exp(np.clip(d / blur * 2.2, -30, 30)))

    def moved_part(shift_u, shift_v, angle, inside):
        cos, sin = np.cos(angle), np.sin(angle)
        du, dv = u - pivot - shift_u, v - fracture.along - shift_v
        part_u, part_v = pivot + cos * du + sin * dv, fracture.along - sin * du + cos * dv
        return _intact_bone(bone, turn, part_u, part_v, texture) * inside(part_u, part_v)

    if fracture.kind == "hairline":  # a thin cleft that does not go all the way through
        cleft = np.exp(-((distance(u, v) / (fracture.gap * 0.8)) ** 2))
        reach = soft_step((u - pivot) * np.sign(fracture.slope or 1) - 0.5 * bone.shaft)
        return _intact_bone(bone, turn, u, v, texture) * (1 - 0.55 * cleft * reach)
    half_gap = fracture.gap / 2
    total = moved_part(0, 0, 0, lambda a, b: soft_step(distance(a, b) + half_gap))
    total = total + moved_part(
        fracture.shift * facing,
        -fracture.shorten,
        fracture.angle * facing,
        lambda a, b: soft_step(half_gap - distance(a, b)),
    )
    for index, (_, _, shift_u, shift_v, angle) in enumerate(fracture.pieces):

        def inside_piece(a, b, index=index):
            """Cut off the piece's Voronoi cell within the gap."""
            d = distance(a, b)
            in_gap = soft_step(d - half_gap) * soft_step(-half_gap - d)
            to_seeds = [
                np.hypot((d / fracture.gap - along) * 1.5, (a - pivot) / bone.shaft - across)
                for along, across, *_ in fracture.pieces
            ]
            to_others = np.min([seed for k, seed in enumerate(to_seeds) if k != index], axis=0)
            return in_gap * soft_step((to_seeds[index] - to_others) * bone.shaft)

        total = total + moved_part(shift_u * bone.shaft, shift_v * bone.shaft, angle, inside_piece)
    return total


def _fracture_box(patient, turn, centre, tilt, pitch, size):
    fracture, bone = patient.fracture, patient.bones[patient.fracture.bone]
    reach_v = fracture.gap / 2 + abs(fracture.slope) * bone.shaft + 3 + max(fracture.shorten, 0)
    reach_u = bone.shaft * 1.15 + 2 + 0.7 * abs(fracture.shift * np.cos(turn - fracture.azimuth))
    u = _find_axis(bone, turn, fracture.along) + reach_u * np.array([-1, 1, -1, 1]) - centre[0]
    v = fracture.along + reach_v * np.array([-1, -1, 1, 1]) - centre[1]
    x = (np.cos(tilt) * u - np.sin(tilt) * v) / pitch + size[1] / 2
    y = (np.sin(tilt) * u + np.cos(tilt) * v) / pitch + size[0] / 2
    left, right = np.clip([x.min(), x.max()], 0, size[1] - 1)
    top, bottom = np.clip([y.min(), y.max()], 0, size[0] - 1)
    return int(left), int(top), int(np.ceil(right)), int(np.ceil(bottom))


def _expose(rng, attenuation, side, pitch, device):
    """Return the 8-bit picture that a detector shows of the attenuation along each ray."""
    size = attenuation.shape
    attenuation = attenuation + 3.0 * _draw_marker(rng, side, size, attenuation)
    primary = cv2.GaussianBlur(np.exp(-attenuation), (0, 0), rng.uniform(*device.blur))
    scatter = cv2.GaussianBlur(primary, (0, 0), 14 / pitch)
    signal = primary + rng.uniform(*device.scatter) * scatter
    photons = 10 ** rng.uniform(*device.photons)
    counts = rng.normal(signal * photons, np.sqrt(signal * photons + 4))  # nearly Poisson at these counts
    density = -np.log(np.maximum(counts, 1) / photons)
    low = np.percentile(density, 1) + rng.uniform(-0.04, 0.1)
    high = np.percentile(density, 99.2) * rng.uniform(0.97, 1.05)
    shown = np.clip((density - low) / (high - low), 0, 1) ** rng.uniform(*device.gamma)
    shown = shown * rng.uniform(0.9, 1.0)
    return np.round(255 * shown * _draw_collimation(rng, size, device)).astype(np.uint8)


def _draw_collimation(rng, size, device):
    """Return 1 inside the exposed field and 0 outside; some views are exposed completely."""
    if rng.random() < device.open_field:
        return np.ones(size, np.float32)
    height, width = size
    centre = (width * rng.uniform(0.47, 0.53), height * rng.uniform(0.47, 0.53))
    sides = (
        width * rng.uniform(*device.field),
        height * rng.uniform(device.field[0] + 0.04, device.field[1]),
    )
    corners = cv2.boxPoints((centre, sides, float(rng.normal(0, 2.5))))
    exposed = cv2.fillConvexPoly(np.zeros(size, np.float32), np.round(corners).astype(np.int32), 1.0)
    return cv2.GaussianBlur(exposed, (0, 0), 0.7)


def _draw_marker(rng, side, size, attenuation):
    """Return a lead letter, L or R, where attenuation is the least of twelve places: beside the limb."""
    height, width = size
    letter = int(rng.uniform(0.07, 0.1) * height)
    places = [(rng.integers(4, width - letter), rng.integers(4, height - 2 * letter)) for _ in range(12)]
    left, top = min(places, key=lambda p: attenuation[p[1] : p[1] + letter, p[0] : p[0] + letter].mean())
    canvas = Image.new("L", (width, height))
    draw = ImageDraw.Draw(canvas)
    draw.text((left, top), side, fill=255, font=ImageFont.load_default(letter))
    return cv2.GaussianBlur(np.asarray(canvas, dtype=np.float32) / 255, (0, 0), 0.5)
