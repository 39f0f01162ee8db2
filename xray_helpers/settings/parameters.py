"""The parameters of a study, each checked."""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xray_helpers.settings.names import (
    MAX_CLASSES,
    POSITIVE,
    VALIDATION,
    check_model_name,
    read_list,
    read_merge,
    split_model,
)

RECIPE_EPOCHS = {"frozen": 0, "finetune": 10}  # of fine-tuning, where none are given
TUNING = (  # parameters without effect where nothing is fine-tuned
    *("fine_tune_from", "fine_tune_learning_rate", "layer_decay", "warmup", "label_smoothing", "ema_epochs"),
)


class Settings(BaseModel):
    """The parameters of a study; the defaults are the profile ``quick``.

    Relative paths start at the root of the repository. Each description is also the help in the README and in
    the notebooks' parameter cells; tests check that they agree.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), coerce_numbers_to_str=True
    )

    name: str = Field("quick", description="name of the study, and of its folder under reports/")
    data: str = Field("data", description="a folder or CSV of radiographs, or 'phantoms' (synthetic ones)")
    img_size: tuple[int, int] = Field(
        (224, 224), description="height and width in pixels of the images that the models see"
    )
    classes: tuple[str, ...] = Field(
        ("auto",),
        description="'auto': two classes, or more where folders or labels name more; or their names",
    )
    positive: str = Field(
        POSITIVE, description="what the binary question asks for: 'Fractured', or one of several classes"
    )
    merge: dict[str, tuple[str, ...]] = Field(
        {}, description="classes to be joined, as in {Fractured: [simple, comminuted], Non-Fractured: [none]}"
    )
    use_subset: float = Field(
        0.02, gt=0, le=1, description="share of the images used (at least 100 per class)"
    )
    split: Literal["grouped", "folders"] = Field(
        "grouped", description="'grouped': draw the parts by group; 'folders': use the train/val/test folders"
    )
    count: Literal["sources", "files"] = Field(
        "sources", description="what validation and test count: each source once, or every copy of it"
    )
    accept_leak: bool = Field(False, description="continue although train and test share sources or patients")
    corrections: str = Field(
        "data/corrections.csv", description="an optional CSV of files to join or separate by hand"
    )
    folds: int = Field(5, ge=2, le=50, description="number of group-aware folds for cross-validation")
    repeats: int = Field(
        3,
        ge=0,
        le=1000,
        description="how often the head is trained again with other seeds; 0: never, nor cross-validated",
    )
    models: tuple[str, ...] = Field(
        ("InceptionV3", "ResNet50", "VGG16", "DenseNet121", "MobileNetV2"),
        description="the backbones to compare",
    )
    sources: dict[str, str] = Field(
        {}, description="where models that are not in keras.applications lie, by name; filled from 'models'"
    )
    pooling: Literal["auto", "mean", "cls"] = Field(
        "auto",
        description="features of transformers: the class token 'cls', the 'mean' of patches, or 'auto'",
    )
    weights: str = Field(
        "imagenet", description="weights of the backbones: 'imagenet', 'random', 'auto', or a file or folder"
    )
    normalization: Literal["imagenet", "unit"] = Field(
        "imagenet",
        description="preprocessing: each backbone's own, or 'unit': [0, 1] for all (a known mistake)",
    )
    border: Literal["keep", "blank", "only"] = Field(
        "keep", description="to look for a shortcut: 'blank' the border and corners, or keep them 'only'"
    )
    shortcuts: Literal["on", "off"] = Field(
        "on", description="test how well border and corners, file size and storage alone predict the label"
    )
    augment_views: int = Field(
        0, ge=0, le=64, description="augmented views of each training image, in addition to the original"
    )
    engine: Literal["auto", "tensorflow", "openvino"] = Field(
        "auto", description="what computes the features: 'auto' (the fastest), 'tensorflow' or 'openvino'"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        "auto", description="precision of the features: 'auto', 'float32', 'bfloat16', 'float16' or 'int8'"
    )
    batch_size: int = Field(16, ge=1, le=4096, description="images per training step of the head")
    epochs: int = Field(3, ge=1, le=10_000, description="maximum number of passes over the training images")
    learning_rate: float = Field(0.001, gt=0, le=1, description="learning rate of Adam")
    class_weight: Literal["none", "balanced"] = Field(
        "none", description="'none': each image has the same weight in the loss; 'balanced': each class has"
    )
    dropout_rate: float = Field(
        0.5, ge=0, lt=1, description="dropout before the dense layer; after it, 0.6 times this rate"
    )
    patience: int = Field(
        2, ge=0, description="epochs without a better validation loss before training stops"
    )
    lr_factor: float = Field(
        0.5, gt=0, lt=1, description="factor by which the learning rate is reduced on a plateau"
    )
    min_lr: float = Field(1e-7, ge=0, description="lower bound of the learning rate")
    recipe: Literal["frozen", "finetune"] = Field(
        "frozen",
        description="'frozen': only the head learns; 'finetune': then the backbone too, where that helps",
    )
    fine_tune_epochs: int = Field(
        0, ge=0, le=10_000, description="number of epochs of fine-tuning; 0: what the recipe takes"
    )
    fine_tune_from: float | str = Field(
        1.0, description="layers to fine-tune: the upper share of them, or the name of the first"
    )
    fine_tune_learning_rate: float = Field(
        3e-4, gt=0, le=1, description="highest learning rate of Adam during fine-tuning"
    )
    layer_decay: float = Field(
        0.7, gt=0, le=1, description="factor of that rate from each fifth of these layers to the one below it"
    )
    warmup: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of fine-tuning's steps in which that rate rises; then a cosine falls",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="in fine-tuning, labels are taken this much closer to 0.5; 0: as they are",
    )
    ema_epochs: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="epochs over which fine-tuned weights are averaged (a moving average, EMA); 0: none",
    )
    flips: bool = Field(
        False, description="predict the mean probability of each image and of its mirror image"
    )
    threshold_rule: Literal["youden", "sensitivity", "fixed"] = Field(
        "youden",
        description="operating threshold, never from test: 'youden', 'sensitivity' or 'fixed' at 0.5",
    )
    target_sensitivity: float = Field(
        0.95, gt=0, le=1, description="sensitivity that threshold_rule 'sensitivity' reaches"
    )
    maps: int = Field(
        200, ge=0, le=100_000, description="maximum number of test images with saliency maps; 0: none"
    )
    localizer: str = Field(
        "head",
        pattern=r"^(head|primary|off|hub:.+|local)$",
        description="what learns where fractures are: 'head', 'primary' (one model), 'hub:PRESET', or 'off'",
    )
    depth: Literal["percentiles", "range"] = Field(
        "percentiles",
        description="black and white above 8 bits without a window: 0.5 and 99.5 'percentiles', or 'range'",
    )
    resize: Literal["stretch", "pad"] = Field(
        "stretch", description="how images are brought to img_size: 'stretch', or 'pad' with black"
    )
    truncated: Literal["exclude", "keep"] = Field(
        "exclude", description="truncated JPEGs: 'exclude' them, or 'keep' the part that can be read"
    )
    other_modalities: bool = Field(False, description="also read DICOM files that are not plain radiographs")
    patient_pattern: str = Field(
        "", description="regular expression on the path; group 1 identifies the patient"
    )
    exam_pattern: str = Field(
        "", description="regular expression on the path; group 1 identifies the exam, of one or more views"
    )
    exam_score: Literal["mean", "max", "attention"] = Field(
        "mean", description="how an exam is scored by its images: 'mean', 'max', or 'attention' (learned)"
    )
    primary: Literal[
        "auroc", "average_precision", "accuracy", "balanced_accuracy", "recall", "specificity", "f1"
    ] = Field("auroc", description="the primary endpoint, fixed before the test part is evaluated")
    primary_model: str = Field(
        VALIDATION, description="whose primary endpoint: a model, or the one that 'validation' prefers"
    )
    prevalence: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="a further prevalence of fractures at which PPV and NPV are reported; 0: none",
    )
    readers: str = Field("", description="an optional CSV of human readings: path, reader, call or score")
    eager: bool = Field(False, description="run TensorFlow eagerly, for debugging")
    seed: int = Field(
        42, ge=0, lt=2**32, description="random seed of sampling, splits, augmentation and training"
    )

    @property
    def tuning_epochs(self) -> int:
        """The number of epochs of fine-tuning, by the parameters or else the recipe."""
        return self.fine_tune_epochs or RECIPE_EPOCHS[self.recipe]

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_as_number(cls, value: Any, info: Any) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("it does not take true or false")
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

    @field_validator("classes", mode="before")
    @classmethod
    def _list_of_names(cls, value: Any) -> Any:
        return read_list(value)

    @field_validator("classes")
    @classmethod
    def _some_classes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value) or (len(value) < 2 and value != ("auto",)):
            raise ValueError("name at least two classes, each once, or 'auto'")
        if len(value) > MAX_CLASSES:
            raise ValueError(f"more than {MAX_CLASSES} classes are taken for a mistake")
        return value

    @field_validator("merge", mode="before")
    @classmethod
    def _read_merge(cls, value: Any) -> Any:
        return read_merge(value)

    @field_validator("fine_tune_from", mode="before")
    @classmethod
    def _number_or_name(cls, value: Any) -> Any:
        try:
            value = float(value)
        except (TypeError, ValueError):
            return value
        if not 0 < value <= 1:
            raise ValueError("a share must be above 0 and at most 1")
        return value

    @model_validator(mode="before")
    @classmethod
    def _name_sources(cls, values: Any) -> Any:
        """Give models that come from a place a name, under which their place stands in `sources`."""
        entries = read_list(values.get("models"))
        if not isinstance(entries, list | tuple):
            return values
        pairs = [split_model(str(entry)) for entry in entries]
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1 and any(source for other, source in pairs if other == name):
                raise ValueError(f"two models are called {name!r}: name one, as in {name}_2=hub:FOLDER")
        for name, source in (values.get("sources") or {}).items():
            check_model_name(str(name))
            if source != "local" and not re.match(r"(hub|file):.", str(source)):
                raise ValueError(f"the source of {name} must begin with hub: or file:")
        sources = {**(values.get("sources") or {}), **{name: source for name, source in pairs if source}}
        return {**values, "models": names, "sources": {n: s for n, s in sources.items() if n in names}}

    @field_validator("models")
    @classmethod
    def _some_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("name at least one model, each once")
        return value

    @model_validator(mode="after")
    def _primary_is_trained(self) -> "Settings":
        if self.primary_model not in (VALIDATION, *self.models):
            raise ValueError(f"{self.primary_model} is not one of the study's models")
        return self

    @field_validator("name")
    @classmethod
    def _folder_name(cls, value: str) -> str:
        parts = value.split("/")  # a study, or a sweep and one of its studies
        if len(parts) > 2 or any(
            not p or p.startswith(".") or Path(p).name != p or not p.isprintable() for p in parts
        ):
            raise ValueError("must be a plain folder name")
        if max(map(len, parts)) > 100:
            raise ValueError("must have at most 100 letters")
        return value

    @field_validator("patient_pattern", "exam_pattern")
    @classmethod
    def _one_group(cls, value: str, info: Any) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from None
        if value and groups < 1:
            raise ValueError(f"needs one group in parentheses: the {info.field_name.split('_')[0]}")
        return value
