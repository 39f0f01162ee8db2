"""The parameters of a study, validated once, the profiles they begin from, and the names of the classes."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

POSITIVE = "Fractured"
NEGATIVE = "Non-Fractured"
CLASS_NAMES = (NEGATIVE, POSITIVE)  # index = y_true: the positive class is 1, whatever folders sort to
SPLITS = ("train", "validation", "test")
VALIDATION = "validation"  # the value of `primary_model` that means: the one that validation prefers
FEW = 8  # effective groups (Kish) of a class below which a threshold or an interval rests on nothing
_shown_names = list(CLASS_NAMES)


def class_names() -> tuple[str, str]:
    """Return how the study at hand calls the negative and the positive class, as the data do."""
    return _shown_names[0], _shown_names[1]


def call_classes(names: Sequence[str]) -> None:
    """Let `class_names` return these names of the negative and the positive class, in this process."""
    _shown_names[:] = names


class InputError(Exception):
    """What a user can mend: one sentence that says what, where, and what to do."""


def read_list(value: Any) -> Any:
    """Return the parts of a text such as ``[a, b]``, ``(a, b)`` or ``a, b``; anything but a text as it is."""
    if not isinstance(value, str):
        return value
    parts = [part.strip().strip("\"'") for part in value.strip().strip("()[]").split(",")]
    return parts if any(parts) else []


class Settings(BaseModel):
    """The parameters of a study; the defaults are the profile ``quick``.

    Relative paths are meant from the repository's root.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), coerce_numbers_to_str=True
    )

    name: str = Field("quick", description="the study: a folder of reports/")
    data: str = Field("data", description="a folder or CSV of radiographs, or 'phantoms'")
    img_size: tuple[int, int] = Field((224, 224), description="height and width in pixels the models see")
    use_subset: float = Field(0.02, gt=0, le=1, description="share of the images used (at least 100 a class)")
    split: Literal["grouped", "folders"] = Field(
        "grouped", description="'grouped' draws the parts; 'folders' takes the set's own train/val/test"
    )
    count: Literal["sources", "files"] = Field(
        "sources", description="what validation and test count: each source once, or every copy of it"
    )
    accept_leak: bool = Field(False, description="go on although train and test share sources or patients")
    corrections: str = Field(
        "data/corrections.csv", description="a CSV of files to join or separate by hand, where there is one"
    )
    folds: int = Field(5, ge=2, le=50, description="group-aware parts for cross-validation")
    repeats: int = Field(
        3,
        ge=0,
        le=1000,
        description="heads trained again with other seeds; 0: none, nor on folds of all images",
    )
    models: tuple[str, ...] = Field(
        ("InceptionV3", "ResNet50", "VGG16", "DenseNet121", "MobileNetV2"), description="the backbones"
    )
    weights: str = Field("imagenet", description="'imagenet', 'random', 'auto', or a file or folder")
    normalization: Literal["imagenet", "unit"] = Field(
        "imagenet", description="each backbone's own preprocessing, or [0, 1] for all (a known mistake)"
    )
    border: Literal["keep", "blank", "only"] = Field(
        "keep", description="look for a shortcut: 'blank' the border and corners, or keep them 'only'"
    )
    shortcuts: Literal["on", "off"] = Field(
        "on",
        description="whether border and corners, and the files' size and storage, are judged alone as well",
    )
    augment_views: int = Field(
        0, ge=0, le=64, description="augmented views of each training image, beside itself"
    )
    engine: Literal["auto", "tensorflow", "openvino"] = Field(
        "auto", description="what computes features: the fastest, 'tensorflow' or 'openvino'"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of features: the fastest, or as told"
    )
    batch_size: int = Field(16, ge=1, le=4096, description="images a step of the head's training")
    epochs: int = Field(3, ge=1, le=10_000, description="passes over the training images, at most")
    learning_rate: float = Field(0.001, gt=0, le=1, description="Adam's")
    class_weight: Literal["none", "balanced"] = Field(
        "none", description="'none': each image counts alike in the loss; 'balanced': each class does"
    )
    dropout_rate: float = Field(0.5, ge=0, lt=1, description="before the dense layer; 0.6 of it after")
    patience: int = Field(2, ge=0, description="epochs without a better validation loss before stopping")
    lr_factor: float = Field(0.5, gt=0, lt=1, description="learning-rate reduction on a plateau")
    min_lr: float = Field(1e-7, ge=0, description="learning-rate floor")
    fine_tune_epochs: int = Field(
        0, ge=0, le=10_000, description="of training the backbone's upper layers as well"
    )
    fine_tune_from: float | str = Field(
        0.2, description="which layers: the upper share of them, or the name of the first"
    )
    fine_tune_learning_rate: float = Field(1e-5, gt=0, le=1, description="Adam's, for fine-tuning")
    threshold_rule: Literal["youden", "sensitivity", "fixed"] = Field(
        "youden",
        description="operating threshold, chosen without test: 'youden', 'sensitivity', or 'fixed' at 0.5",
    )
    target_sensitivity: float = Field(
        0.95, gt=0, le=1, description="what threshold_rule 'sensitivity' reaches"
    )
    maps: int = Field(
        200, ge=0, le=100_000, description="test images to show where a model looked at, at most; 0: none"
    )
    depth: Literal["percentiles", "range"] = Field(
        "percentiles",
        description="what is black and white of more than 8 bits without a window: 0.5 and 99.5 %, or all",
    )
    resize: Literal["stretch", "pad"] = Field(
        "stretch", description="how pictures become img_size: stretched, or padded on black"
    )
    truncated: Literal["exclude", "keep"] = Field(
        "exclude", description="truncated JPEGs: left out, or read as far as they go"
    )
    other_modalities: bool = Field(False, description="read DICOM files that are no plain radiographs, too")
    patient_pattern: str = Field("", description="regular expression on the path; group 1 is the patient")
    primary: Literal[
        "auroc", "average_precision", "accuracy", "balanced_accuracy", "recall", "specificity", "f1"
    ] = Field("auroc", description="the primary endpoint, fixed before the test part is judged")
    primary_model: str = Field(
        VALIDATION, description="whose primary endpoint: a model, or the one 'validation' prefers"
    )
    prevalence: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of fractures at which PPV and NPV are told as well; 0: at the usual ones alone",
    )
    readers: str = Field(
        "", description="a CSV of what readers said of the images: path, reader, call or score"
    )
    eager: bool = Field(False, description="run TensorFlow step by step, for debugging")
    seed: int = Field(42, ge=0, lt=2**32, description="of sampling, splits, augmentation and training")

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: Any, info: Any) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("true and false are no value for it")
        return value

    @field_validator("img_size", mode="before")
    @classmethod
    def _two_sides(cls, value: Any) -> Any:
        value = read_list(value.replace("x", ",")) if isinstance(value, str) else value
        sides = list(value) if isinstance(value, list | tuple) else [value]
        return sides * 2 if len(sides) == 1 else sides

    @field_validator("img_size")
    @classmethod
    def _side_range(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not all(32 <= side <= 1024 for side in value):
            raise ValueError("both sides must lie between 32 and 1024 pixels")
        return value

    @field_validator("fine_tune_from", mode="before")
    @classmethod
    def _number_or_name(cls, value: Any) -> Any:
        try:
            return float(value)
        except (TypeError, ValueError):
            return value

    @field_validator("fine_tune_from")
    @classmethod
    def _share(cls, value: float | str) -> float | str:
        if isinstance(value, float) and not 0 < value <= 1:
            raise ValueError("a share lies above 0 and up to 1")
        return value

    @field_validator("models", mode="before")
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return read_list(value)

    @field_validator("models")
    @classmethod
    def _some_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("name at least one model, each once")
        return value

    @model_validator(mode="after")
    def _primary_is_trained(self) -> "Settings":
        if self.primary_model not in (VALIDATION, *self.models):
            raise ValueError(f"primary_model names {self.primary_model}, which is none of the study's models")
        return self

    @field_validator("name")
    @classmethod
    def _folder_name(cls, value: str) -> str:
        parts = value.split("/")  # a study, or a sweep and a study of it
        if len(parts) > 2 or any(
            not p or p.startswith(".") or Path(p).name != p or not p.isprintable() for p in parts
        ):
            raise ValueError("must be a plain folder name")
        if max(map(len, parts)) > 100:
            raise ValueError("must have at most 100 letters")
        return value

    @field_validator("patient_pattern")
    @classmethod
    def _one_group(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from None
        if value and groups < 1:
            raise ValueError("needs one group in parentheses: the patient")
        return value


PROFILES: dict[str, dict[str, Any]] = {
    "quick": {},
    "full": {"use_subset": 1.0, "epochs": 50, "threshold_rule": "sensitivity"},
    "smoke": {"use_subset": 0.01, "epochs": 1},
    "eager": {"eager": True},
    "demo": {
        "data": "phantoms",
        "img_size": (128, 128),
        "use_subset": 1.0,
        "epochs": 20,
        "patience": 5,
        "repeats": 1,
        "maps": 60,
        "weights": "auto",
    },
}


def nearest(word: str, known: Any) -> str:
    """Return ``"; did you mean X?"`` for the nearest known word, or an empty string."""
    lower = {name.lower(): name for name in known}
    match = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[match[0]]}?" if match else ""


def build_settings(profile: str = "quick", **values: Any) -> Settings:
    """Build the settings of a study from a profile and what overrides it.

    Parameters
    ----------
    profile : str
        One of `PROFILES`.
    **values
        Parameters by name, as Python values or as the text a command line gives.

    Raises
    ------
    InputError
        For an unknown profile or parameter (naming the nearest known one), a wrong type, or a value
        out of range.
    """
    if profile not in PROFILES:
        raise InputError(
            f"There is no profile {profile!r}{nearest(profile, PROFILES)} Known: {', '.join(PROFILES)}."
        )
    check_names(values)
    return validate(Settings, {"name": profile} | PROFILES[profile] | values)


def validate(model: type[BaseModel], values: dict[str, Any]) -> Any:
    """Return a model of values; raise `InputError` in one sentence for the first that cannot be used."""
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "primary_model"
        why = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
        raise InputError(
            f"{field} = {values.get(field)!r} cannot be used: {why} ({field}: "
            f"{model.model_fields[field].description})."
        ) from None


def check_names(names: Any, *, known: Any = (), where: str = "") -> None:
    """Raise `InputError` for the first name that is no parameter, naming the nearest that is."""
    known = {*Settings.model_fields, *known}
    for name in names:
        if name not in known:
            raise InputError(
                f"There is no parameter {name!r}{where}{nearest(name, known)} Known: "
                f"{', '.join(sorted(known))}."
            )
