"""Rounds without Flower: the average of McMahan et al., sites that fail, and a run that goes on."""

import numpy as np
import pytest

from xray_helpers.federated.averaging import Update
from xray_helpers.federated.client import Site, build_trained, initial_weights, train_round
from xray_helpers.federated.outcome import describe_rounds, rounds_table
from xray_helpers.federated.rounds import (
    Exchanged,
    Plan,
    Record,
    choose_round,
    load_weights,
    loss_table,
    run_rounds,
)
from xray_helpers.settings import InputError
from xray_helpers.study.files import read_json


def test_federated_is_central_fedavg_in_ten_lines_of_numpy(write_plan, places, direct):
    """With one full batch an epoch, no dropout and plain gradient descent, all of it can be written down."""
    plan, folder = write_plan(rounds=2, local_epochs=2)

    def descend(site, weights, plan, number):
        return Update(
            numpy_epochs(site, weights, plan.local_epochs), len(site.train[1]), len(site.validation[1]), 0.5
        )

    run_rounds(folder, direct(plan, places, descend))
    sites = [Site.read(place) for place in places]
    w = load_weights(folder / "round_000.npz")
    n = np.array([len(site.train[1]) for site in sites])
    for _ in range(2):
        local = [numpy_epochs(site, w, 2) for site in sites]
        w = [sum(n[i] / n.sum() * local[i][k] for i in range(3)) for k in range(len(w))]
    for found, expected in zip(load_weights(folder / "round_002.npz"), w, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def numpy_epochs(site, weights, epochs, rate=0.05):
    """Return the head of two dense layers after some steps of gradient descent on all images."""
    (x, y), (a, b, c, d) = site.train, (array.astype(float) for array in weights)
    for _ in range(epochs):
        hidden = np.maximum(x @ a + b, 0)
        error = (1 / (1 + np.exp(-(hidden @ c + d))) - y[:, None]) / len(y)
        back = (error @ c.T) * (hidden > 0)
        a, b, c, d = (
            a - rate * x.T @ back,
            b - rate * back.sum(0),
            c - rate * hidden.T @ error,
            d - rate * error.sum(0),
        )
    return [array.astype(np.float32) for array in (a, b, c, d)]


def test_keras_sites_give_what_their_average_is_and_the_loss_falls(write_plan, places, direct):
    plan, folder = write_plan()
    record = run_rounds(folder, direct(plan, places))
    start, sites = load_weights(folder / "round_002.npz"), [Site.read(place) for place in places]
    local = [train_round(site, start, plan, 3) for site in sites]
    n = np.array([one.images for one in local])
    for k, found in enumerate(load_weights(folder / "round_003.npz")):
        expected = np.average([one.weights[k] for one in local], axis=0, weights=n)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    mean = loss_table(record).query("site == 'all'")["loss"].to_numpy()
    assert len(mean) == 4
    assert mean[-1] < mean[0]
    assert choose_round(record) == int(mean.argmin())
    np.testing.assert_array_equal(build_trained(plan, start).get_weights()[0], start[0])


def test_the_same_round_gives_the_same_weights_and_another_site_or_round_others(write_plan, places):
    plan, _ = write_plan()
    site, start = Site.read(places[0]), initial_weights(plan)
    first, again = (train_round(site, start, plan, 1).weights for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    for other in (train_round(site, start, plan, 2), train_round(site._replace(name="z"), start, plan, 1)):
        assert np.abs(first[0] - other.weights[0]).max() > 1e-4


def test_a_strong_proximal_term_keeps_a_site_at_the_shared_weights(write_plan, places):
    moved = {}
    for strength in (0.0, 1.0, 1000.0):
        plan, _ = write_plan(proximal=strength, local_epochs=4)
        start = initial_weights(plan)
        trained = train_round(Site.read(places[0]), start, plan, 1).weights
        moved[strength] = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(trained, start, strict=True)))
    assert moved[0.0] > moved[1.0] > moved[1000.0]


class Failing:
    """An exchange in which sites fail by a script: round, site, how."""

    def __init__(self, inner, script):
        self.inner, self.script = inner, script

    def train(self, number, weights):
        found = self.inner.train(number, weights)
        updates, failures = dict(found.updates), {}
        for site, how in self.script.get(number, {}).items():
            if isinstance(how, str):
                del updates[site]
                failures[site] = how
            else:
                updates[site] = how(updates[site])
        return Exchanged(updates, failures)

    def evaluate(self, weights):
        return self.inner.evaluate(weights)


def spoil(update):
    return update._replace(weights=[update.weights[0] * np.nan, *update.weights[1:]])


def reshape(update):
    return update._replace(weights=[update.weights[0][:, :5], *update.weights[1:]])


def test_sites_that_fail_are_left_out_named_and_asked_again(write_plan, places, direct):
    plan, folder = write_plan()
    script = {1: {"a": spoil}, 2: {"b": reshape, "c": "no answer within 60 s"}}
    record = run_rounds(folder, Failing(direct(plan, places), script))
    assert [sorted(row["sites"]) for row in record.rounds] == [["b", "c"], ["a"], ["a", "b", "c"]]
    assert "not finite" in record.rounds[0]["left_out"]["a"]
    assert "have the shapes 12x5" in record.rounds[1]["left_out"]["b"]
    alone = train_round(Site.read(places[0]), load_weights(folder / "round_001.npz"), plan, 2)
    np.testing.assert_allclose(load_weights(folder / "round_002.npz")[0], alone.weights[0], atol=1e-6)
    told = describe_rounds(record, plan, 3)
    assert "**c was left out of round 2** (last: no answer within 60 s)" in told
    assert rounds_table(record)["left out"].str.contains("not finite").tolist() == [True, False, False]
    mean = loss_table(record).query("site == 'all'")["loss"]
    assert np.isfinite(mean).all()


def test_a_run_goes_on_from_its_last_round_and_a_longer_plan_too(write_plan, places, direct, tmp_path):
    plan, folder = write_plan("stopped")
    gone = {2: dict.fromkeys("abc", "not connected")}
    with pytest.raises(InputError, match="No site could be used in round 2"):
        run_rounds(folder, Failing(direct(plan, places), gone))
    assert len(read_json(folder / "rounds.json")["rounds"]) == 1
    asked = []

    def work(site, weights, plan, number):
        asked.append(number)
        return train_round(site, weights, plan, number)

    record = run_rounds(folder, direct(plan, places, work))
    assert set(asked) == {2, 3}
    _, whole = write_plan("whole")
    run_rounds(whole, direct(plan, places))
    for a, b in zip(*(load_weights(at / "round_003.npz") for at in (folder, whole)), strict=True):
        np.testing.assert_array_equal(a, b)
    longer, _ = write_plan("stopped", rounds=4)
    assert Record.read(folder, longer.key) == record
    assert len(run_rounds(folder, direct(longer, places)).losses) == 5
    write_plan("stopped", seed=9)  # another plan: the old rounds are removed
    assert sorted(path.name for path in folder.iterdir()) == ["plan.json", "round_000.npz"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("privacy", "magic"), ("rounds", 0), ("clip", 0.0), ("noise", -1.0), ("proximal", -0.1)],
)
def test_a_plan_that_is_not_possible_is_refused(field, value):
    with pytest.raises(InputError, match=field):
        Plan("", "", {}, {}, 0, (), **{field: value})


def test_a_folder_without_a_site_is_told(tmp_path):
    with pytest.raises(InputError, match="holds no site"):
        Site.read(tmp_path)
