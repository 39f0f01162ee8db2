"""Kill the real demo study at random moments, run the same command again, and compare: 20 times.

    python benchmarks/survive.py [ROUNDS] [MODELS]

The first run is left alone; its metrics.json are what all others must end with. Each round kills the command, a step or a
kernel with SIGKILL, waits for what it started to end, runs the same command again, and looks at numbers, partial files
and processes.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

VICTIMS = {"command": "xray_helpers run", "step": "xray_helpers.execution", "kernel": "ipykernel_launcher"}


def ours(mark: str, words: str = "") -> list[psutil.Process]:
    """Return the processes of this benchmark, by a word of their command lines."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MARK") == mark and words in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def main(rounds: int = 20, models: str = "MobileNetV2") -> None:
    """Print a row a round; exit status 1 where one of them did not end as it should."""
    root = Path(tempfile.mkdtemp(prefix="survive-"))
    folder = root / "reports" / "survive"
    env = os.environ | {"XRAY_HELPERS_ROOT": str(root), "MARK": root.name}
    command = [sys.executable, "-m", "xray_helpers", "run", "--profile", "demo", "--name", "survive", "--models", models,
               "-p", "weights=random"]  # fmt: skip
    quiet = {"env": env, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}

    def numbers() -> dict[str, bytes]:
        return {name: (folder / name / "metrics.json").read_bytes() for name in models.split(",")}

    subprocess.run(command, **quiet)  # fills the cache
    shutil.rmtree(folder)
    started = time.monotonic()
    subprocess.run(command, **quiet)
    alone, wanted, draw = time.monotonic() - started, numbers(), random.Random(20)
    print(
        f"left alone: {alone:.0f} s\n\n| round | killed | after, s | in | again, s | same numbers | partial files | processes |"
    )
    print("|---|---|---|---|---|---|---|---|")
    well = 0
    for number in range(1, rounds + 1):
        shutil.rmtree(folder)
        victim, moment = draw.choice(list(VICTIMS)), draw.uniform(0, alone)
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moment)
        while not (found := ours(root.name, VICTIMS[victim])) and process.poll() is None:
            time.sleep(0.05)
        done = sorted(path.name.split(".")[0] for path in folder.rglob("*.done.json"))
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
        print(f"| {number} | {victim} | {moment:.0f} | after {len(done)} steps | {again:.0f} | {'yes' if same else 'NO'} "
              f"| {partial} | {left} |", flush=True)  # fmt: skip
    print(f"\n{well} of {rounds} ended with the same numbers, no partial file and no process left.")
    shutil.rmtree(root)
    sys.exit(well < rounds)


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((int, str), sys.argv[1:], strict=False)))
