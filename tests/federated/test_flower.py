"""Flower's simulation: the same weights as without it, sites that fail, masked sums, and noise."""

import numpy as np
import pytest

from xray_helpers.federated.averaging import Update
from xray_helpers.federated.client import train_round
from xray_helpers.federated.rounds import load_weights, run_rounds

pytest.importorskip("flwr", reason="Flower is not installed: make federated")
pytest.importorskip("ray", reason="Flower's simulation is not installed: make federated")
pytestmark = pytest.mark.slow

from xray_helpers.federated.apps import build_client, build_server, simulate  # noqa: E402
from xray_helpers.federated.exchange import _reason, pack, unpack  # noqa: E402


def fail_by_script(site, weights, plan, number):
    """In round 1 b raises; in round 2 c sends NaN; the work of a site, run in a process of its own."""
    if (site.name, number) == ("b", 1):
        raise RuntimeError("the disk of b is full")
    update = train_round(site, weights, plan, number)
    if (site.name, number) == ("c", 2):
        update = Update([one * np.nan for one in update.weights], *update[1:])
    return update


def difference(first, second):
    pairs = zip(load_weights(first), load_weights(second), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def test_the_simulation_gives_the_weights_of_direct_calls_and_leaves_out_who_fails(
    write_plan, places, direct
):
    _, folder = write_plan(rounds=3)
    record = simulate(folder, places, fail_by_script)
    assert [sorted(row["sites"]) for row in record.rounds] == [["a", "c"], ["a", "b"], ["a", "b", "c"]]
    assert record.rounds[0]["left_out"] == {"b": "the disk of b is full"}
    assert "not finite" in record.rounds[1]["left_out"]["c"]
    assert all(
        row["received"] > 4 * sum(w.size for w in load_weights(folder / "round_000.npz"))
        for row in record.rounds
    )

    class Scripted(direct):
        def train(self, number, weights):
            found = super().train(number, weights)
            for site, gone in (("b", 1), ("c", 2)):
                if number == gone:
                    del found.updates[site]
            return found

    same, other = write_plan("direct", rounds=3)
    run_rounds(other, Scripted(same, places))
    assert difference(folder / "round_003.npz", other / "round_003.npz") < 1e-6
    assert simulate(folder, places) == record  # nothing is left to do


def test_masked_sums_are_the_average_and_a_site_that_drops_out_does_not_spoil_them(
    write_plan, places, direct
):
    _, folder = write_plan(rounds=2, privacy="secure")
    record = simulate(folder, places, fail_in_first)
    assert [sorted(row["sites"]) for row in record.rounds] == [["a", "c"], ["a", "b", "c"]]
    assert record.rounds[0]["left_out"] == {"b": "the disk of b is full"}

    class Scripted(direct):
        def train(self, number, weights):
            found = super().train(number, weights)
            if number == 1:
                del found.updates["b"]
            return found

    same, other = write_plan("direct", rounds=2)
    run_rounds(other, Scripted(same, places))
    assert difference(folder / "round_002.npz", other / "round_002.npz") < 1e-3
    assert difference(folder / "round_001.npz", other / "round_001.npz") < 1e-4


def fail_in_first(site, weights, plan, number):
    """In round 1 b raises."""
    if (site.name, number) == ("b", 1):
        raise RuntimeError("the disk of b is full")
    return train_round(site, weights, plan, number)


def test_noise_is_clipped_change_and_gaussian(write_plan, places, direct):
    """Without noise the clip alone: no site moves the average by more than the norm."""
    _, folder = write_plan(rounds=1, privacy="noise", noise=0.0, clip=0.01)
    simulate(folder, places)
    start, clipped = (load_weights(folder / f"round_00{n}.npz") for n in (0, 1))
    moved = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(clipped, start, strict=True)))
    assert 0.001 < moved < 0.0101


def test_weights_pass_through_flowers_records_and_errors_are_one_line():
    weights = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(())]
    for found, given in zip(unpack(pack(weights)), weights, strict=True):
        np.testing.assert_array_equal(found, given)
        assert found.dtype == given.dtype
    assert _reason("<class 'RuntimeError'>:<'the disk is full'>") == "the disk is full"
    assert _reason("") == "no reason"
    assert build_client() is not None
    assert build_server() is not None
