"""The rounds of a federated training: a plan, what was exchanged in each round, and where it goes on."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from xray_helpers.federated.averaging import Combine, Update, Weights, average, check_update
from xray_helpers.settings import InputError
from xray_helpers.study.files import atomic_write, hash_of, read_json, write_json

PLAN, ROUNDS = "plan.json", "rounds.json"
PRIVACY = ("none", "secure", "noise")
_FREE = ("rounds", "timeout", "trained")  # may change while a run goes on; the backbone's hash tells its cut


@dataclass(frozen=True)
class Plan:
    """What all sites and the server agree on.

    Attributes
    ----------
    model : str
        The backbone.
    backbone : str
        A hash of its weights and of how pictures reach it, which each site computes for itself.
    settings : dict
        Of the study: those that training the head uses.
    classes : dict
        Fields of `settings.Classes`.
    features : int
        How many numbers the backbone, or its lower part, gives of each image.
    sites : tuple of str
    data : str
        A hash of the sites' images, where one machine has them all, so that other images begin anew.
    rounds, local_epochs : int
    proximal : float
        Strength of FedProx's term; 0 is FedAvg.
    privacy : {'none', 'secure', 'noise'}
    clip : float
        With ``noise``, the norm to which the change of a site's weights is clipped.
    noise : float
        With ``noise``, the standard deviation of what is added to the sum of the changes, in clips.
    seed : int
    timeout : float
        Seconds after which a site that has not answered is left out of the round.
    trained : tuple of str
        The layers of the backbone that are trained with the head, as the plan's machine calls them.
    """

    model: str
    backbone: str
    settings: dict[str, Any]
    classes: dict[str, Any]
    features: int
    sites: tuple[str, ...]
    data: str = ""
    rounds: int = 10
    local_epochs: int = 2
    proximal: float = 0.0
    privacy: str = "none"
    clip: float = 1.0
    noise: float = 1.0
    seed: int = 0
    timeout: float = 600.0
    trained: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        wrong = {
            "privacy": self.privacy not in PRIVACY,
            "rounds": self.rounds < 1,
            "local_epochs": self.local_epochs < 1,
            "proximal": self.proximal < 0,
            "clip": self.clip <= 0,
            "noise": self.noise < 0,
        }
        for name, is_wrong in wrong.items():
            if is_wrong:
                allowed = f"one of {', '.join(PRIVACY)}" if name == "privacy" else "a positive number"
                raise InputError(f"{name} = {getattr(self, name)!r} is not possible: give {allowed}.")

    @property
    def key(self) -> str:
        """A hash of all that changes the weights of a round."""
        return hash_of({name: value for name, value in asdict(self).items() if name not in _FREE})

    def check_site(self, name: str) -> None:
        """Raise `InputError` where a site is none of the plan's."""
        if name not in self.sites:
            raise InputError(f"The plan has no site {name!r}: its sites are {', '.join(self.sites)}.")

    def write(self, folder: Path, initial: Weights) -> "Plan":
        """Write the plan and the initial weights; a run of another plan that lies there is removed."""
        known = read_json(folder / PLAN, default={})
        if not known or Plan.read(folder).key != self.key:
            for path in (folder / ROUNDS, *folder.glob("round_*.npz")):
                path.unlink(missing_ok=True)
            save_weights(folder / "round_000.npz", initial)
        write_json(folder / PLAN, asdict(self))
        return self

    @classmethod
    def read(cls, folder: Path) -> "Plan":
        """Read what `write` wrote; raise `InputError` where there is none."""
        if not (folder / PLAN).exists():
            raise InputError(
                f"{folder} holds no {PLAN}: ask the server's hospital for the folder of its plan."
            )
        return cls.parse(read_json(folder / PLAN))

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> "Plan":
        """Return the plan of a dictionary, as it is sent to sites."""
        return cls(**values | {key: tuple(values.get(key, ())) for key in ("sites", "trained")})


def save_weights(path: Path, weights: Weights) -> None:
    """Write weights completely or not at all."""
    with atomic_write(path) as partial:
        np.savez(partial, **{f"w{number:03d}": array for number, array in enumerate(weights)})


def load_weights(path: Path) -> Weights:
    """Read what `save_weights` wrote; raise `InputError` where that is missing or not whole."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return [stored[name] for name in sorted(stored.files)]
    except (OSError, ValueError, BadZipFile):
        raise InputError(
            f"{path.parent} holds no {path.name} that can be read: ask the server's hospital for it again."
        ) from None


class Exchanged(NamedTuple):
    """What came back from the sites.

    Attributes
    ----------
    updates : dict
        By site.
    failures : dict
        Of each site without an update the reason.
    sent, received : int
        Bytes, over all sites.
    total : list of ndarray, or None
        The average, where only that is known.
    """

    updates: dict[str, Update]
    failures: dict[str, str]
    sent: int = 0
    received: int = 0
    total: Weights | None = None


class Exchange(Protocol):
    """How weights travel: between machines, between processes, or not at all."""

    def train(self, number: int, weights: Weights) -> Exchanged:
        """Let every site train from these weights."""

    def evaluate(self, weights: Weights) -> Exchanged:
        """Let every site compute the validation loss of these weights."""


@dataclass
class Record:
    """What ``rounds.json`` holds.

    Attributes
    ----------
    key : str
        Of the plan.
    rounds : list of dict
        Of each round: round, seconds, sent, received (bytes), sites (by name: images, validation_images), and
        left_out (by name the reason).
    losses : list of dict
        Validation loss by site of the weights after so many rounds, from round 0 on.
    """

    key: str
    rounds: list[dict[str, Any]] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, key: str) -> "Record":
        """Return the record of a run, or an empty one."""
        values = read_json(folder / ROUNDS, default={})
        return cls(**values) if values.get("key") == key else cls(key)


def run_rounds(
    folder: Path,
    exchange: Exchange,
    combine: Combine | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> Record:
    """Run the rounds of the plan in a folder that are still missing, and write each as it ends.

    A site whose update is missing or cannot be used is left out of the round, with the reason, and asked
    again in the next.

    Parameters
    ----------
    folder : Path
        Of `Plan.write`.
    exchange : Exchange
    combine : callable, optional
        Returns the weights of a round from its updates and the round's number; by default `average`.
    told : callable
        Receives a sentence after each round.

    Raises
    ------
    InputError
        When no site at all gave an update in a round: the run goes on from there when it is started again.
    """
    plan = Plan.read(folder)
    record = Record.read(folder, plan.key)
    weights = load_weights(folder / f"round_{len(record.rounds):03d}.npz")
    for number in range(len(record.rounds) + 1, plan.rounds + 1):
        started = time.monotonic()
        found = exchange.train(number, weights)
        updates, left_out = _sort(found, weights)
        if not updates:
            reasons = "; ".join(f"{site}: {reason}" for site, reason in left_out.items())
            raise InputError(
                f"No site could be used in round {number} ({reasons}): mend that and start again, and the "
                "run goes on from there."
            )
        weights = found.total or (combine or (lambda chosen, _: average(chosen)))(updates, number)
        save_weights(folder / f"round_{number:03d}.npz", weights)
        del record.losses[number - 1 :]
        record.losses.append({site: update.validation_loss for site, update in updates.items()})
        record.rounds.append(
            {
                "round": number,
                "seconds": round(time.monotonic() - started, 2),
                "sent": found.sent,
                "received": found.received,
                "sites": {
                    site: {"images": one.images, "validation_images": one.validation_images}
                    for site, one in updates.items()
                },
                "left_out": left_out,
            }
        )
        write_json(folder / ROUNDS, asdict(record))
        told(f"round {number} of {plan.rounds}: " + _describe_round(record.rounds[-1]))
    if len(record.losses) <= plan.rounds:
        found = exchange.evaluate(weights)
        record.losses.append({site: update.validation_loss for site, update in found.updates.items()})
        write_json(folder / ROUNDS, asdict(record))
    return record


def _sort(found: Exchanged, like: Weights) -> tuple[dict[str, Update], dict[str, str]]:
    """Return the updates that can be used, and why the others are left out."""
    refused = {site: check_update(update, like) for site, update in found.updates.items()}
    good = {site: update for site, update in sorted(found.updates.items()) if not refused[site]}
    left_out = found.failures | {site: reason for site, reason in refused.items() if reason}
    if found.total is not None and check_update(Update(found.total, 1, 0, 0.0), like):
        return {}, left_out | dict.fromkeys(good, "the masked sum cannot be used")
    return good, dict(sorted(left_out.items()))


def _describe_round(row: Mapping[str, Any]) -> str:
    out = "; ".join(f"{site} left out: {reason}" for site, reason in row["left_out"].items())
    return f"{len(row['sites'])} sites in {row['seconds']:.0f} s" + (f"; {out}" if out else "")


def loss_table(record: Record) -> pd.DataFrame:
    """Return the validation losses: round, site (``all`` is the mean by images), loss.

    A site that was left out of a round keeps the loss it had before in the mean; images are those of its last
    answer.
    """
    counts = {
        site: entry["validation_images"] for row in record.rounds for site, entry in row["sites"].items()
    }
    wide = pd.DataFrame(record.losses, index=pd.RangeIndex(len(record.losses), name="round"))
    wide = wide[sorted(wide.columns)]
    filled, weight = wide.ffill().bfill(), pd.Series(counts).reindex(wide.columns)
    mean = (filled * weight).sum(axis=1) / weight.sum()
    table = wide.assign(all=mean).reset_index().melt("round", var_name="site", value_name="loss")
    return table.dropna(ignore_index=True)


def choose_round(record: Record) -> int:
    """Return after how many rounds the mean validation loss is lowest; 0 stands for the initial weights."""
    mean = loss_table(record).query("site == 'all'").set_index("round")["loss"]
    return int(mean.idxmin())
