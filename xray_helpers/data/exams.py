"""Exams: the images of one examination of one patient, such as the views of a wrist taken together."""

import pandas as pd

from xray_helpers.images.patient_names import without_placeholders
from xray_helpers.settings import SPLITS, class_names, number_of

MOST_IMAGES = 20  # of an exam; names that stand for so many images are mostly those of something else


def check_exams(exam: pd.Series, patient: pd.Series, given: pd.Series, notes: list[str]) -> pd.Series:
    """Return exams, with those missing that stand for none, and numbers within a patient named by both.

    Parameters
    ----------
    exam, patient : Series of str
        Of the readable images; missing where unknown.
    given : Series of bool
        Whether an exam's name is that of a path or table. Others are hashes of StudyInstanceUID, which no two
        exams share.
    notes : list of str
        What was decided is added.
    """
    exam = _qualify(without_placeholders(exam), patient, given, notes)
    exam = _drop_categories(exam, notes)
    patients = patient.groupby(exam).nunique()
    several = int((patients > 1).sum())
    if several:  # patients are not named: notes are in reports
        notes.append(
            f"{number_of(several, 'exam has', 'exams have')} "
            "images of more than one patient: their images, and those of all these "
            "patients, stay in one part; find them in manifest.csv and correct their patient or exam."
        )
    return exam


def _qualify(exam: pd.Series, patient: pd.Series, given: pd.Series, notes: list[str]) -> pd.Series:
    """Return exams named by patient and exam where names such as ``study1`` are those of most patients."""
    names = exam.where(given)
    known = names[patient.notna()].dropna()
    shared = patient.groupby(names).nunique()
    repeated = known.isin(shared.index[shared > 1])
    if not repeated.mean() > 0.5:
        return exam
    notes.append(
        f"Exams are numbered within each patient (one name is that of {int(shared.max())} patients): an "
        "exam is taken as patient and number together."
    )
    numbered = exam.notna() & given
    return exam.mask(numbered, patient + "/" + exam)  # missing where the patient is unknown


def _drop_categories(exam: pd.Series, notes: list[str]) -> pd.Series:
    """Return exams without names of so many images that they are no exams, such as ``wrist``."""
    sizes = exam.map(exam.value_counts()).astype(float)
    large = sizes >= MOST_IMAGES
    none = sizes.notna() if sizes.median() >= MOST_IMAGES else large & (sizes > len(exam) / 5)
    if none.any():
        notes.append(
            f"{number_of(none.sum(), 'image names', 'images name')} "
            f"an exam that has up to {int(sizes[none].max())} images: such "
            "names are taken for those of something else, and the exams of these images as unknown; give "
            "exam_pattern where paths name exams, or a CSV with a column exam."
        )
    return exam.mask(none)


def exams_table(manifest: pd.DataFrame) -> pd.DataFrame:
    """Count the exams of each part, one row per part, and of all parts; empty where no exam is known.

    Returns
    -------
    DataFrame
        part, exams, images (that count and whose exam is known), images of no exam, 1 image, 2 images,
        3 images, 4 or more (exams of so many), both labels (exams of images of both classes), patients, with
        several exams (patients).
    """
    used = _counted(manifest)
    if "exam" not in used or not used["exam"].notna().any():
        return pd.DataFrame()
    parts = {split: used[used["split"] == split] for split in SPLITS} | {"all": used}
    return pd.DataFrame([{"part": name} | _count(part) for name, part in parts.items()])


def _counted(manifest: pd.DataFrame) -> pd.DataFrame:
    used = manifest[manifest["status"] == "used"]
    return used[used["counted"].fillna(True).astype(bool)] if "counted" in used else used


def _count(part: pd.DataFrame) -> dict[str, int | str]:
    known = part.dropna(subset="exam")
    exams = known.groupby("exam")
    sizes, of_patient = exams.size(), known.groupby("patient")["exam"].nunique()
    return {
        "exams": len(sizes),
        "images": len(known),
        "images of no exam": len(part) - len(known),
        **{f"{size} image{'s'[: size > 1]}": int((sizes == size).sum()) for size in (1, 2, 3)},
        "4 or more": int((sizes > 3).sum()),
        "both labels": int(exams["label"].nunique().ge(2).sum()),
        "patients": len(of_patient),
        "with several exams": int((of_patient > 1).sum()),
    }


def describe_exams(manifest: pd.DataFrame) -> str:
    """Return how many exams there are, of how many images and patients, and whose images have both labels."""
    table = exams_table(manifest)
    if table.empty:
        return (
            "No exams are known, so each image is scored by itself; exams are known from DICOM files, the "
            "folders of MURA, exam_pattern, or a CSV's column exam."
        )
    row = table.iloc[-1].drop("part").astype(int)
    text = f"{row['images']} of the images that count belong to {row['exams']} exams"
    text += f", {row['images'] / row['exams']:.1f} each on average; {row['1 image']} exams have one image."
    if row["patients"]:
        text += f" {row['with several exams']} of {row['patients']} patients have several exams."
    if row["images of no exam"]:
        text += (
            f" {number_of(row['images of no exam'], 'image belongs', 'images belong')} "
            "to no known exam, not scored by exam."
        )
    if row["both labels"]:
        text += (
            f" {number_of(row['both labels'], 'exam holds', 'exams hold')} "
            "images of both classes: by the reference standard such an "
            f"exam is {class_names()[1]}, as any exam of which one image is."
        )
    return text
