"""Three sites of random features, one of them small, and a plan for them."""

import numpy as np
import pytest

from xray_helpers.federated.client import Site, evaluate_weights, initial_weights, train_round
from xray_helpers.federated.rounds import Exchanged, Plan
from xray_helpers.settings import build_settings

SIZES = {"a": 80, "b": 48, "c": 16}
WIDTH = 12


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """The folders of three sites whose features have other means."""
    folder, rng = tmp_path_factory.mktemp("sites"), np.random.default_rng(5)
    truth = rng.normal(size=WIDTH)
    for shift, (name, size) in enumerate(SIZES.items()):
        x = (rng.normal(size=(size + 20, WIDTH)) + 0.3 * shift).astype("float32")
        y = (x @ truth + rng.normal(size=len(x)) > 0.3 * shift * truth.sum()).astype(int)
        Site(name, "backbone", (x[:size], y[:size]), (x[size:], y[size:])).write(folder / name)
    return [folder / name for name in SIZES]


@pytest.fixture
def write_plan(tmp_path):
    """Write a plan of three rounds, with other fields as given; return it and its folder."""

    def write(name="run", **options):
        settings = build_settings(seed=3, batch_size=16, learning_rate=0.01, dropout_rate=0.2)
        values = {key: value for key, value in settings.model_dump(mode="json").items() if key != "name"}
        plan = Plan(
            "M", "backbone", values, {}, WIDTH, tuple(SIZES), **{"rounds": 3, "timeout": 60.0, **options}
        )
        return plan.write(tmp_path / name, initial_weights(plan)), tmp_path / name

    return write


class Direct:
    """Rounds without Flower: each site is called."""

    def __init__(self, plan, places, work=train_round):
        self.plan, self.work = plan, work
        self.sites = [Site.read(place) for place in places]

    def train(self, number, weights):
        """Let every site train."""
        return Exchanged({s.name: self.work(s, weights, self.plan, number) for s in self.sites}, {})

    def evaluate(self, weights):
        """Return the losses."""
        return Exchanged({s.name: evaluate_weights(s, weights, self.plan) for s in self.sites}, {})


@pytest.fixture(scope="session")
def direct():
    """The class above."""
    return Direct
