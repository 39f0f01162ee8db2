"""How weights travel between the server and the sites: by Flower's grid, in the clear, clipped, or masked."""

import json
import logging
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from xray_helpers.federated.averaging import Update, Weights, average
from xray_helpers.federated.rounds import Exchanged, Plan
from xray_helpers.settings import InputError
from xray_helpers.study.seeds import derive_seed

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, Context, Message, RecordDict
    from flwr.serverapp import Grid
ARRAYS, CONFIG, METRICS = "arrays", "config", "metrics"
FITINS, FITRES = "fitins", "fitres"  # how records are called under secure aggregation
_POLL = 0.5  # seconds
_START = 300.0  # seconds that sites have at least to come up, whatever the plan's timeout
_LARGEST = 8.0  # weights of a larger size than this are cut off by secure aggregation
log = logging.getLogger("xray_helpers")


def pack(weights: Weights) -> "ArrayRecord":
    """Return weights as Flower sends them."""
    from flwr.app import Array, ArrayRecord

    return ArrayRecord({f"w{number:03d}": Array(np.asarray(one)) for number, one in enumerate(weights)})


def unpack(record: "ArrayRecord") -> Weights:
    """Return what `pack` packed, or the like."""
    return [array.numpy() for array in record.values()]


class GridExchange:
    """Rounds by Flower's grid; `rounds.Exchange`.

    Parameters
    ----------
    grid : Grid
    context : Context
        Of the server's app.
    plan : Plan
    simulated : bool
        As for `apps.build_server`.
    """

    def __init__(self, grid: "Grid", context: "Context", plan: Plan, *, simulated: bool = False) -> None:
        self.grid, self.context, self.plan, self.simulated = grid, context, plan, simulated
        self.nodes: dict[str, int] = {}  # by site the node that speaks for it
        self.images: dict[str, int] = {}
        self.refused: dict[str, str] = {}
        self._met: set[int] = set()

    def wait_for_sites(self) -> None:
        """Wait until all sites of the plan are there, or two of them after the plan's timeout.

        Raises
        ------
        InputError
            When fewer than two sites are there.
        """
        until = time.monotonic() + max(self.plan.timeout, _START)
        while self._meet() and time.monotonic() < until:
            time.sleep(_POLL)
        if len(self.nodes) < min(2, len(self.plan.sites)):
            reasons = "; ".join(f"{site}: {reason}" for site, reason in self.refused.items())
            raise InputError(
                f"{len(self.nodes)} of the sites {', '.join(self.plan.sites)} are connected"
                + (f" ({reasons})" if reasons else "")
                + ": two or more are needed."
            )

    def _meet(self) -> list[str]:
        """Ask nodes that are new for their site; return the sites that are still missing."""
        present = set(self.grid.get_node_ids())
        replies, _, _ = self._ask(
            "query", {node: {CONFIG: {"asked": "site"}} for node in present - self._met}
        )
        for node, reply in replies.items():
            if isinstance(reply, str):
                log.warning("A node does not say which site it is: %s", reply)
                continue
            self._met.add(node)
            about = reply[CONFIG]
            name = str(about["name"])
            if name not in self.plan.sites:
                log.warning("%s is no site of this plan: it takes no part.", name)
            elif about["backbone"] != self.plan.backbone:
                self.refused[name] = "its backbone, or how it reads pictures, is not that of the plan"
            else:
                self.nodes[name], self.images[name] = node, int(about["images"])
                self.refused.pop(name, None)
        return [site for site in self.plan.sites if site not in self.nodes and site not in self.refused]

    def _ask(
        self, kind: str, contents: Mapping[int, Mapping[str, Any]]
    ) -> tuple[dict[int, "RecordDict | str"], int, int]:
        """Send each node a message; return its reply or why there is none, then bytes sent and received."""
        from flwr.app import ConfigRecord, Message, RecordDict

        messages = [
            Message(
                RecordDict(
                    {key: ConfigRecord(one) if isinstance(one, dict) else one for key, one in content.items()}
                ),
                dst_node_id=node,
                message_type=kind,
            )
            for node, content in contents.items()
        ]
        if not messages:
            return {}, 0, 0
        sent = sum(map(count_bytes, messages))
        found = list(self.grid.send_and_receive(messages, timeout=self.plan.timeout))
        late = f"no answer within {self.plan.timeout:g} s"
        replies: dict[int, RecordDict | str] = dict.fromkeys(contents, late)
        for node, reply in match_replies(messages, found):
            replies[node] = _reason(reply.error.reason) if reply.has_error() else reply.content
        return replies, sent, sum(map(count_bytes, found))

    def train(self, number: int, weights: Weights) -> Exchanged:
        """Let every site that is there train from these weights."""
        from flwr.supercore.differential_privacy import KEY_CLIPPING_NORM

        missing = dict.fromkeys(self._meet(), "not connected") | self.refused
        config = {"plan": json.dumps(asdict(self.plan)), "round": number}
        if self.plan.privacy == "secure":
            return self._train_masked(config, weights, missing)
        if self.plan.privacy == "noise":
            config[KEY_CLIPPING_NORM] = float(self.plan.clip)
        return self._gather("train", {ARRAYS: pack(weights), CONFIG: config}, missing)

    def evaluate(self, weights: Weights) -> Exchanged:
        """Let every site that is there compute the validation loss."""
        missing = dict.fromkeys(self._meet(), "not connected") | self.refused
        config = {"plan": json.dumps(asdict(self.plan))}
        return self._gather("evaluate", {ARRAYS: pack(weights), CONFIG: config}, missing)

    def combine(self, updates: Mapping[str, Update], number: int) -> Weights:
        """Return the average; under differential privacy of equal sites, with noise (McMahan et al. 2018)."""
        if self.plan.privacy != "noise":
            return average(updates)
        from flwr.supercore.differential_privacy import add_gaussian_noise_inplace, compute_stdv

        weights = [np.array(one) for one in average(updates, equal=True)]
        np.random.seed(derive_seed(self.plan.seed, "noise", number) if self.simulated else None)  # noqa: NPY002
        add_gaussian_noise_inplace(weights, compute_stdv(self.plan.noise, self.plan.clip, len(updates)))
        return weights

    def _gather(self, kind: str, content: dict[str, Any], missing: dict[str, str]) -> Exchanged:
        present = set(self.grid.get_node_ids())
        missing |= {site: "not connected" for site, node in self.nodes.items() if node not in present}
        asked = {node: site for site, node in self.nodes.items() if site not in missing}
        replies, sent, received = self._ask(kind, dict.fromkeys(asked, content))
        updates, failures = {}, dict(missing)
        for node, reply in replies.items():
            if isinstance(reply, str):
                failures[asked[node]] = reply
                continue
            try:
                weights = unpack(reply[ARRAYS]) if kind == "train" else None
                metrics = reply[METRICS]
                counts = int(metrics["num-examples"]), int(metrics["validation-images"])
                updates[asked[node]] = Update(weights, *counts, float(metrics["validation-loss"]))
            except (KeyError, TypeError, ValueError) as error:
                failures[asked[node]] = f"its answer cannot be read ({type(error).__name__})"
        return Exchanged(updates, failures, sent, received)

    def _train_masked(self, config: dict[str, Any], weights: Weights, missing: dict[str, str]) -> Exchanged:
        """Train under Flower's secure aggregation (SecAgg+), which gives the server the masked sum alone.

        Only sites that answer a question beforehand are asked, as the protocol cannot go on without one that
        is missing from its start.
        """
        from flwr.common import FitIns, Parameters
        from flwr.server.compat.legacy_context import LegacyContext
        from flwr.server.workflow.secure_aggregation import SecAggPlusWorkflow

        question = {node: {CONFIG: {"asked": "there"}} for node in self.nodes.values()}
        replies, *_ = self._ask("query", question)
        there = {node: site for site, node in self.nodes.items() if not isinstance(replies[node], str)}
        failures = missing | {
            site: str(replies[node]) for site, node in self.nodes.items() if node not in there
        }
        if len(there) < 2:
            return Exchanged({}, failures | dict.fromkeys(there.values(), "alone, it cannot be masked"))
        tensors = [array.data for array in pack(weights).values()]
        fit = FitIns(Parameters(tensors, "numpy.ndarray"), config)
        strategy = _MaskedRound([(SimpleNamespace(node_id=node), fit) for node in there])
        counted = _CountingGrid(self.grid)
        context = LegacyContext(self.context, strategy=strategy, client_manager=_Counter(len(there)))
        _set_round(context, config["round"], fit)
        SecAggPlusWorkflow(
            1.0,
            0.6,
            max_weight=float(max(self.images[site] for site in there.values())),
            clipping_range=_LARGEST,
            timeout=self.plan.timeout,
        )(counted, context)
        updates = {
            there[proxy.node_id]: Update(
                None,
                int(result.num_examples),
                int(result.metrics["validation-images"]),
                float(result.metrics["validation-loss"]),
            )
            for proxy, result in strategy.results
        }
        lost = {site: counted.reasons.get(node, "dropped out") for node, site in there.items()}
        failures |= {site: reason for site, reason in lost.items() if site not in updates}
        total = strategy.total(weights) if updates else None
        return Exchanged(updates, failures, counted.sent, counted.received, total)


class _Counter:
    def __init__(self, count: int) -> None:
        self.count = count

    def num_available(self) -> int:
        return self.count


class _MaskedRound:
    """What Flower's workflow of secure aggregation asks of a strategy."""

    def __init__(self, asked: list[tuple[Any, Any]]) -> None:
        self.asked, self.results = asked, []

    def configure_fit(self, *_: object) -> list[tuple[Any, Any]]:
        """Return whom to ask, and what."""
        return self.asked

    def aggregate_fit(self, number: int, results: list, failures: list) -> tuple[None, dict]:
        """Keep what came out; every result has the average as its parameters."""
        self.results = results
        return None, {}

    def total(self, like: Weights) -> Weights:
        """Return the average in the types of the weights that were sent."""
        from flwr.common import parameters_to_ndarrays

        found = parameters_to_ndarrays(self.results[0][1].parameters)
        return [one.astype(other.dtype) for one, other in zip(found, like, strict=True)]


class _CountingGrid:
    """The grid, with the bytes of each message counted and the reasons of failures kept."""

    def __init__(self, grid: "Grid") -> None:
        self.grid, self.sent, self.received, self.reasons = grid, 0, 0, {}

    def send_and_receive(self, messages: Iterable["Message"], *, timeout: float | None = None) -> list:
        """Send messages and return the replies."""
        messages = list(messages)
        self.sent += sum(map(count_bytes, messages))
        replies = list(self.grid.send_and_receive(messages, timeout=timeout))
        self.received += sum(map(count_bytes, replies))
        late = f"no answer within {timeout:g} s"
        matched = dict(match_replies(messages, replies))
        for node in (message.metadata.dst_node_id for message in messages):
            if node not in matched or matched[node].has_error():
                self.reasons[node] = _reason(matched[node].error.reason) if node in matched else late
        return replies


def _set_round(context: Any, number: int, fit: Any) -> None:
    """Put what the workflow reads into its context."""
    from flwr.app import ConfigRecord
    from flwr.compat.common.recorddict_compat import parameters_to_arrayrecord
    from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD, Key

    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({Key.CURRENT_ROUND: number})
    context.state.array_records[MAIN_PARAMS_RECORD] = parameters_to_arrayrecord(fit.parameters, True)


def match_replies(messages: list["Message"], replies: list["Message"]) -> list[tuple[int, "Message"]]:
    """Return each reply with the node that was asked; the SuperLink answers for a node that is gone."""
    asked = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    return [(asked.get(r.metadata.reply_to_message_id, r.metadata.src_node_id), r) for r in replies]


def count_bytes(message: "Message") -> int:
    """Return the bytes of a message's content as it is sent."""
    from flwr.common.serde import recorddict_to_proto

    return 0 if message.has_error() else recorddict_to_proto(message.content).ByteSize()


def _reason(text: str) -> str:
    """Return in one line what Flower tells of an error; in the simulation that is below Ray's traceback."""
    found = re.search(r"(?:Message: |:<')(.+?)(?:'>)?\s*$", text, flags=re.DOTALL)
    lines = [line.strip() for line in (found[1] if found else text).splitlines() if line.strip()]
    return (
        lines[-1].removeprefix("Exception ClientAppException occurred. Message: ")[:200]
        if lines
        else "no reason"
    )
