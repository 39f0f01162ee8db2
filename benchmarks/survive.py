"""Kill the real demo study at random moments, run the same command again, and compare: 20 times.

    python benchmarks/survive.py [ROUNDS] [MODELS]
    python benchmarks/survive.py --quick

The first two runs are left alone, with an empty cache and a full one; their metrics.json are what all others
must end with. Each round kills the command, a step or a kernel with SIGKILL, waits for what it started to
end, runs the same command again, and looks at numbers, partial files and processes. Every other round begins
with an empty cache.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import click
import psutil
from small import QUICK, STUDY, write_set

VICTIMS = {
    "command": "xray_helpers run",
    "step": "xray-step",
    "kernel": "xray-kernel",
    "what is copied": "xray_helpers.runner.forks",
}


def ours(mark: str, words: str = "") -> list[psutil.Process]:
    """Return the processes of this benchmark, by a word of their names or command lines."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == mark and words in " ".join(
                [process.name(), *process.cmdline()]
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


@click.command()
@click.argument("rounds", default=20)
@click.argument("models", default="MobileNetV2")
@click.option("--quick", is_flag=True, help=QUICK)
def main(rounds: int, models: str, quick: bool) -> None:
    """Print a row a round; exit status 1 where one of them did not end as it should."""
    root = Path(tempfile.mkdtemp(prefix="survive-"))
    folder = root / "reports" / "survive"
    env = os.environ | {"XRAY_HELPERS_ROOT": str(root), "MARK": root.name}
    command = [sys.executable, "-m", "xray_helpers", "run", "--name", "survive"]
    if quick:
        rounds, models = 1, "MobileNetV2"
        command += ["--data", str(write_set(root)[0] / "phantoms.csv"), *STUDY]
    else:
        command += ["--profile", "demo", "--models", models, "-p", "weights=random"]
    quiet = {"env": env, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}

    def numbers() -> dict[str, bytes]:
        return {name: (folder / name / "metrics.json").read_bytes() for name in models.split(",")}

    alone, wanted, draw = {}, None, random.Random(20)
    for cache in ("empty", "full"):
        shutil.rmtree(folder, ignore_errors=True)
        started = time.monotonic()
        subprocess.run(command, **quiet)
        alone[cache], before, wanted = time.monotonic() - started, wanted, numbers()
    if before != wanted:
        sys.exit("With a full cache the numbers are others than with an empty one.")
    print(f"left alone: {alone['empty']:.0f} s with an empty cache, {alone['full']:.0f} s with a full one\n")
    print("| round | cache | killed | after, s | in | again, s | same numbers | partial files | processes |")
    print("|---|---|---|---|---|---|---|---|---|")
    well = 0
    for number in range(1, rounds + 1):
        shutil.rmtree(folder)
        cache = "empty" if number % 2 else "full"
        if cache == "empty":
            shutil.rmtree(root / "data" / "cache")
        victim, moment = draw.choice(list(VICTIMS)), draw.uniform(0, alone[cache])
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        while not (found := ours(root.name, VICTIMS[victim])) and process.poll() is None:
            time.sleep(0.05)
        done = sorted(path.name.split(".")[0] for path in folder.rglob("*.done.json"))
        with suppress(psutil.NoSuchProcess):  # it had ended this moment
            for each in found[:1]:
                each.kill()
        process.wait()
        time.sleep(2)
        left = len(ours(root.name))
        started = time.monotonic()
        status = subprocess.run(command, **quiet).returncode
        again = time.monotonic() - started
        same = status == 0 and numbers() == wanted
        partial, left = len(list(root.rglob("*partial*"))), left + len(ours(root.name))
        well += same and not partial and not left
        print(
            f"| {number} | {cache} | {victim} | {moment:.0f} | after {len(done)} steps | {again:.0f} "
            f"| {'yes' if same else 'NO'} | {partial} | {left} |",
            flush=True,
        )
    print(f"\n{well} of {rounds} ended with the same numbers, no partial file and no process left.")
    shutil.rmtree(root)
    sys.exit(well < rounds)


if __name__ == "__main__":
    main()
