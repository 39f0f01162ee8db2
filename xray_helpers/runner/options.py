"""How a study is run: where, how many steps at once, what each may take."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from xray_helpers.settings import check_names, read_list, validate


class RunOptions(BaseModel):
    """How a study is run: where, how many steps at once, what each may take. It changes no result."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    jobs: int = Field(
        0, ge=0, le=1000, description="steps at once; 0: two as far as cores and memory reach, 10 elsewhere"
    )
    on: str = Field(
        "here", description="'here', 'slurm', 'submitit' (Slurm without a way back), or tcp://… of Dask"
    )
    threads: int = Field(0, ge=0, le=1024, description="cores a step; 0: the machine's, parted between steps")
    memory: float = Field(
        4, gt=0, le=10_000, description="GiB a step; fewer steps run at once where there is less"
    )
    step_limit: float = Field(
        24, gt=0, le=10_000, description="hours after which a step that still runs is ended"
    )
    shard_images: int = Field(
        20_000, ge=0, description="images from which features are extracted in parts of so many; 0: never"
    )
    partition: str = Field("", description="of Slurm; by default the cluster's own")
    account: str = Field("", description="of Slurm")
    walltime: str = Field("1-00:00:00", pattern=r"^(\d+-)?\d+(:\d+){0,2}$", description="of a Slurm job")
    gpus: int = Field(0, ge=0, le=64, description="of a Slurm job")
    directives: tuple[str, ...] = Field((), description="further options of sbatch, such as ['--qos=long']")

    @field_validator("directives", mode="before")
    @classmethod
    def _split_options(cls, value: Any) -> Any:
        return read_list(value)

    @field_validator("directives")
    @classmethod
    def _long_options(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(option.startswith("--") for option in value):
            raise ValueError("write options of sbatch in full, such as --qos=long or --exclusive")
        return value

    @field_validator("on")
    @classmethod
    def _known_place(cls, value: str) -> str:
        if value not in ("here", "slurm", "submitit") and not value.startswith(
            ("tcp://", "tls://", "ucx://")
        ):
            raise ValueError("it is here, slurm, submitit, or the tcp://… address of a Dask scheduler")
        return value


def build_run_options(**values: Any) -> RunOptions:
    """Build the options of a run, as `build_settings` builds a study's settings.

    Raises
    ------
    InputError
        For an unknown option, a wrong type, or a value out of range.
    """
    check_names(values, known=RunOptions.model_fields)
    return validate(RunOptions, values)


def split_run_options(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what of the parameters is a study's, and what says how it is run."""
    running = {key: value for key, value in values.items() if key in RunOptions.model_fields}
    check_names(values, known=RunOptions.model_fields)
    return {key: value for key, value in values.items() if key not in running}, running
