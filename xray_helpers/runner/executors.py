"""Where steps run: here, on Slurm, or on any Dask cluster; each as an executor of `concurrent.futures`."""

import importlib
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xray_helpers.runner.options import RunOptions
from xray_helpers.settings import InputError

AWAY = 10  # steps at once on a cluster by default


def count_jobs(running: RunOptions) -> int:
    """Return how many steps run at once: what `jobs` says; else two here, if cores and memory allow, and ten
    elsewhere.
    """
    if running.on != "here":
        return running.jobs or AWAY
    import psutil

    fit = int(psutil.virtual_memory().total / 2**30 // running.memory)
    return max(1, min(running.jobs or 2, fit, running.jobs or os.cpu_count() or 1))


@contextmanager
def open_executor(running: RunOptions, place: Path) -> Iterator[Executor]:
    """Open the executor that `running` names; the scheduler only calls its ``submit``.

    Parameters
    ----------
    running : RunOptions
    place : Path
        A folder for what a cluster's own logs are; all machines must see it, the study and data/cache at the
        same path.

    Raises
    ------
    InputError
        When the packages it takes are not installed, or the cluster does not answer.
    """
    if running.on == "here":
        with ThreadPoolExecutor(count_jobs(running)) as pool:
            yield pool
    elif running.on == "submitit":
        with _open_submitit(running, place) as executor:
            yield executor
    else:
        with _open_dask(running, place) as client:
            yield client.get_executor(pure=False, retries=0)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"{name} is not installed here: pip install -r requirements/cluster.txt, and run the same "
            "command again."
        ) from None


@contextmanager
def _open_dask(running: RunOptions, place: Path) -> Iterator[Any]:
    """Connect to a scheduler by its address, or start one here whose workers are jobs of Slurm."""
    dask, distributed = _import("dask"), _import("distributed")
    dask.config.set(
        {
            # a step that kills its worker takes no other worker with it
            "distributed.scheduler.allowed-failures": 0,
            "distributed.scheduler.worker-saturation": 1.0,
            "distributed.deploy.lost-worker-timeout": "1s",
            "distributed.comm.timeouts.connect": "30s",
            "distributed.admin.log-format": "%(message)s",
        }
    )
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # the scheduler reports lost workers
    if running.on == "slurm":
        jobqueue = _import("dask_jobqueue")
        with jobqueue.SLURMCluster(**describe_job(running, place)) as cluster:
            _ask_slurm(cluster.job_script())
            cluster.adapt(
                minimum=0, maximum=count_jobs(running), interval="500ms", target_duration="10ms", wait_count=4
            )
            with distributed.Client(cluster) as client:
                yield client
        return
    try:
        client = distributed.Client(running.on, timeout="30s")
    except OSError:
        raise InputError(
            f"No Dask scheduler answers at {running.on}: start it, or give its address with --on."
        ) from None
    with client:
        yield client


def _ask_slurm(script: str) -> None:
    """Raise `InputError` where Slurm would refuse such a job: it would be waited for without an end."""
    try:
        asked = subprocess.run(
            ["sbatch", "--test-only"], input=script, text=True, capture_output=True, check=False
        )
    except FileNotFoundError:
        raise InputError(
            "There is no Slurm here (no sbatch): run this on a login node, or leave --on away."
        ) from None
    if asked.returncode:
        reason = (
            asked.stderr.strip()
            .splitlines()[-1]
            .removeprefix("sbatch: error: ")
            .removeprefix("allocation failure: ")
        )
        raise InputError(
            f"Slurm refuses such a job ({reason}): see partition, account, memory, gpus and directives."
        )


def _extra_directives(running: RunOptions) -> list[str]:
    return [*running.directives, *([f"--gres=gpu:{running.gpus}"] if running.gpus else [])]


def describe_job(running: RunOptions, place: Path) -> dict[str, Any]:
    """Return what dask-jobqueue is asked for: one worker a job, one step at a time, with all the job's
    cores.
    """
    options = {
        "cores": 1,
        "processes": 1,
        "job_cpu": running.threads or 1,
        "memory": f"{running.memory:g} GiB",
        "walltime": running.walltime,
        "queue": running.partition or None,
        "account": running.account or None,
        "job_extra_directives": _extra_directives(running),
        "python": sys.executable,
        "log_directory": str(place),
        "local_directory": str(place),
        "death_timeout": 60,
        "worker_extra_args": ["--no-dashboard"],
        "scheduler_options": {"dashboard": False, "dashboard_address": ":0"},
    }
    return {key: value for key, value in options.items() if value is not None}


@contextmanager
def _open_submitit(running: RunOptions, place: Path) -> Iterator[Executor]:
    submitit = _import("submitit")
    if shutil.which("sbatch") is None:
        raise InputError("There is no Slurm here (no sbatch): run this on a login node, or leave --on away.")
    _watch_queue()
    executor = submitit.AutoExecutor(folder=place, cluster="slurm", slurm_python=sys.executable)
    named = {"partition": running.partition, "account": running.account, "time": running.walltime}
    options = [*(f"--{key}={value}" for key, value in named.items() if value), *_extra_directives(running)]
    _ask_slurm("\n".join(["#!/bin/sh", *(f"#SBATCH {option}" for option in options), "true\n"]))
    parted = (option.removeprefix("--").partition("=") for option in _extra_directives(running))
    extra: dict[str, Any] = {key: value if equals else True for key, equals, value in parted}
    executor.update_parameters(
        cpus_per_task=running.threads or 1,
        mem_gb=running.memory,
        slurm_use_srun=False,
        slurm_additional_parameters=extra,
        **{f"slurm_{key}": value for key, value in named.items() if value},
    )
    watched = _Watched(executor)
    try:
        yield watched
    finally:
        watched.shutdown()


def _watch_queue() -> None:
    """Let submitit poll squeue: sacct needs accounting, which small clusters lack, and lags behind."""
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    class Queue(SlurmInfoWatcher):
        def _make_command(self) -> list[str] | None:
            columns = ["--states=all", "--array", "--noheader", "--format=%i|%T|%N"]
            return ["squeue", "--me", *columns] if self._registered - self._finished else None

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            text = string.decode() if isinstance(string, bytes) else string
            rows = [
                dict(zip(("JobID", "State", "NodeList"), line.split("|"), strict=True))
                for line in text.splitlines()
            ]
            found = {row["JobID"]: row for row in rows}
            return {
                job: found.get(job, {"JobID": job, "State": "GONE"})
                for job in self._registered - self._finished
            }

    SlurmJob.watcher, SlurmJob._results_timeout_s = Queue(delay_s=2), 5


class _Watched(Executor):
    """submitit's jobs, as futures: a thread looks at the files they leave."""

    def __init__(self, executor: Any, every: float = 2.0) -> None:
        self._executor, self._every, self._jobs, self._over = executor, every, {}, False
        threading.Thread(target=self._look, daemon=True).start()

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        future.set_running_or_notify_cancel()
        self._jobs[future] = self._executor.submit(function, *args, **kwargs)
        return future

    def _look(self) -> None:
        while not self._over:
            time.sleep(self._every)
            for future, job in list(self._jobs.items()):
                try:
                    if job.done():
                        del self._jobs[future]
                        future.set_result(job.result())
                except Exception as problem:
                    self._jobs.pop(future, None)
                    future.set_exception(problem)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._over = True
        for job in list(self._jobs.values()):
            job.cancel()
