"""Flower's apps of a site and of the server, the same in the simulation and between machines."""

import importlib.util
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from xray_helpers.federated.averaging import Update
from xray_helpers.federated.client import Site, evaluate_weights, train_round
from xray_helpers.federated.exchange import (
    ARRAYS,
    CONFIG,
    FITINS,
    FITRES,
    METRICS,
    GridExchange,
    pack,
    unpack,
)
from xray_helpers.federated.rounds import Plan, Record, run_rounds
from xray_helpers.settings import InputError
from xray_helpers.study.machine import cores

if TYPE_CHECKING:
    from flwr.app import Context, Message
    from flwr.clientapp import ClientApp
    from flwr.clientapp.typing import ClientAppCallable
    from flwr.serverapp import Grid, ServerApp
PLACE = "site"  # of a SuperNode's --node-config: the folder of its site
MASKED_ONLY = "masked-only"  # of the same: true where the site answers under secure aggregation alone
# so that sums are of one order, and a round gives the same weights in every process
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
_LONGEST = 30  # letters of the temporary folder, as a path of a socket below it has at most 107
_SHARED_MEMORY = 200 * 2**20  # bytes that Ray keeps for what its processes exchange
FOLDER = "folder"  # of the run's configuration: where the server keeps plan and rounds
log = logging.getLogger("xray_helpers")


def require_flower() -> None:
    """Raise `InputError` where Flower is not installed; tell it to report nothing to anybody."""
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    if not all(map(importlib.util.find_spec, ("flwr", "ray"))):
        raise InputError("Federated training needs Flower: install it with `make federated`.")


def choose_mod(message: "Message", context: "Context", call_next: "ClientAppCallable") -> "Message":
    """Let Flower mask or clip what a site sends, as the message asks.

    Raises
    ------
    InputError
        When the site answers under secure aggregation alone and is asked otherwise.
    """
    from flwr.client.mod import secaggplus_mod
    from flwr.clientapp.mod import fixedclipping_mod
    from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS
    from flwr.supercore.differential_privacy import KEY_CLIPPING_NORM

    records = message.content
    if RECORD_KEY_CONFIGS in records:
        return secaggplus_mod(message, context, call_next)
    asked_openly = message.metadata.message_type == "train" and ARRAYS in records
    if asked_openly and context.node_config.get(MASKED_ONLY):
        raise InputError("this site sends weights under secure aggregation only")
    if CONFIG in records and KEY_CLIPPING_NORM in records[CONFIG]:
        return fixedclipping_mod(message, context, call_next)
    return call_next(message, context)


def build_client(places: Iterable[str | Path] = (), work: Callable[..., Update] = train_round) -> "ClientApp":
    """Return the app of a site.

    Parameters
    ----------
    places : iterable of str or Path
        For the simulation the folder of each site; else ``site`` of the node's configuration is taken.
    work : callable
        What a site does in a round, as `client.train_round`.
    """
    from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    app, known = ClientApp(mods=[choose_mod]), [str(place) for place in places]

    def open_site(context: "Context") -> Site:
        config = context.node_config
        return Site.read(Path(str(config[PLACE] if PLACE in config else known[int(config["partition-id"])])))

    def measure(update: Update) -> dict[str, int | float]:
        return {"validation-images": update.validation_images, "validation-loss": update.validation_loss}

    @app.query()
    def query(message: "Message", context: "Context") -> "Message":
        site = open_site(context)
        about = {"name": site.name, "backbone": site.backbone, "images": len(site.train[1])}
        return Message(RecordDict({CONFIG: ConfigRecord(about)}), reply_to=message)

    @app.train()
    def train(message: "Message", context: "Context") -> "Message":
        masked = f"{FITINS}.config" in message.content
        config = message.content[f"{FITINS}.config" if masked else CONFIG]
        arrays = message.content[f"{FITINS}.parameters" if masked else ARRAYS]
        plan = Plan.parse(json.loads(str(config["plan"])))
        update = work(open_site(context), unpack(arrays), plan, int(config["round"]))
        if masked:
            content = RecordDict(
                {
                    f"{FITRES}.parameters": pack(update.weights),
                    f"{FITRES}.num_examples": MetricRecord({"num_examples": update.images}),
                    f"{FITRES}.metrics": ConfigRecord(measure(update)),
                    f"{FITRES}.status": ConfigRecord({"code": 0, "message": ""}),
                }
            )
        else:
            metrics = MetricRecord({"num-examples": update.images, **measure(update)})
            content = RecordDict({ARRAYS: pack(update.weights), METRICS: metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: "Message", context: "Context") -> "Message":
        plan = Plan.parse(json.loads(str(message.content[CONFIG]["plan"])))
        update = evaluate_weights(open_site(context), unpack(message.content[ARRAYS]), plan)
        metrics = MetricRecord({"num-examples": update.images, **measure(update)})
        return Message(RecordDict({METRICS: metrics}), reply_to=message)

    return app


def build_server(folder: Path | None = None, *, simulated: bool = False) -> "ServerApp":
    """Return the app of the server, which runs the rounds of the plan in a folder.

    Parameters
    ----------
    folder : Path, optional
        Of `Plan.write`; else ``folder`` of the run's configuration is taken.
    simulated : bool
        Whether the noise of differential privacy is drawn from the plan's seed; between machines it is drawn
        anew each time, as who knows it can subtract it.
    """
    from flwr.serverapp import ServerApp

    app = ServerApp()

    @app.main()
    def main(grid: "Grid", context: "Context") -> None:
        place = Path(folder or str(context.run_config[FOLDER]))
        plan = Plan.read(place)
        exchange = GridExchange(grid, context, plan, simulated=simulated)
        exchange.wait_for_sites()
        run_rounds(place, exchange, exchange.combine, log.info)

    return app


def simulate(folder: Path, places: Iterable[str | Path], work: Callable[..., Update] = train_round) -> Record:
    """Run the missing rounds of a plan in Flower's simulation, on this machine.

    Parameters
    ----------
    folder : Path
        Of `Plan.write`.
    places : iterable of str or Path
        The folder of each site.
    work : callable
        As for `build_client`.

    Returns
    -------
    Record
    """
    require_flower()
    plan, places = Plan.read(folder), list(places)
    record = Record.read(folder, plan.key)
    if len(record.rounds) >= plan.rounds and len(record.losses) > plan.rounds:
        return record
    with warnings.catch_warnings():  # Ray has all warnings shown from its import on
        import ray  # noqa: F401
        from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    start_ray(min(len(places), cores()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray, about its own future versions
        run_simulation(
            build_server(folder, simulated=True),
            build_client(places, work),
            num_supernodes=len(places),
            backend_config={"client_resources": {"num_cpus": 1}},
        )
    return Record.read(folder, plan.key)


def start_ray(workers: int, tries: int = 3) -> None:
    """Start Ray, which a busy machine may take more than one try for; Flower's simulation then uses it."""
    import ray

    path = {"PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, os.environ.get("PYTHONPATH")]))}
    options = {"num_cpus": workers, "include_dashboard": False, "log_to_driver": False}
    options |= {"logging_level": logging.ERROR, "object_store_memory": _SHARED_MEMORY}
    if os.name == "posix" and len(tempfile.gettempdir()) > _LONGEST:
        options["_temp_dir"] = f"/tmp/ray-{os.getuid()}"
    for left in reversed(range(tries)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ray.init(runtime_env={"env_vars": path | ONE_THREAD}, ignore_reinit_error=True, **options)
            return
        except Exception:  # Ray raises no type of its own when it is late
            ray.shutdown()
            if not left:
                raise
