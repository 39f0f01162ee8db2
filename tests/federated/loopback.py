"""A SuperLink and SuperNodes over TLS on this machine's loopback, as docs/how-to/federated.md starts them.

python tests/federated/loopback.py ROUNDS_FOLDER SITE_FOLDER SITE_FOLDER ...
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import xray_helpers
from xray_helpers.federated.rounds import PLAN, ROUNDS
from xray_helpers.study.files import read_json

APP = Path(xray_helpers.__file__).parent / "federated" / "app"
BIN = Path(sys.executable).parent


def make_certificates(folder: Path) -> None:
    """Write ca.pem, and server.pem with server.key for localhost."""
    new, names = "rsa:2048 -nodes", "subjectAltName=DNS:localhost,IP:127.0.0.1"
    (folder / "names").write_text(names)
    sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 1 -extfile names"
    for command in (
        f"req -x509 -newkey {new} -days 1 -subj /CN=trial -keyout ca.key -out ca.pem",
        f"req -newkey {new} -subj /CN=localhost -keyout server.key -out server.csr",
        f"x509 -req -in server.csr {sign} -out server.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Loopback:
    """A SuperLink and a SuperNode for each site, until the block ends."""

    def __init__(self, sites: list[Path]) -> None:
        self.sites = sites
        self.folder = Path(tempfile.mkdtemp(prefix="loopback-"))
        self.nodes: dict[str, subprocess.Popen] = {}
        self.env = os.environ | {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_HOME": str(self.folder / "home")}
        self.env["PATH"] = f"{BIN}{os.pathsep}{self.env['PATH']}"

    def __enter__(self) -> "Loopback":
        make_certificates(self.folder)
        port = free_port()
        (self.folder / "home").mkdir()
        config = f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "localhost:{port}"\n'
        config += f'root-certificates = "{self.folder / "ca.pem"}"\n'
        (self.folder / "home" / "config.toml").write_text(config)
        tls = "--ssl-ca-certfile ca.pem --ssl-certfile server.pem --ssl-keyfile server.key"
        options = f"--host 127.0.0.1 --port {port} {tls} --disable-runtime-dependency-installation"
        self.link = self._start("superlink", ["flower-superlink", *options.split()])
        self._wait_for(port)
        for site in self.sites:
            options = f"--superlink localhost:{port} --root-certificates ca.pem --port {free_port()}"
            command = ["flower-supernode", *options.split(), "--node-config", f'site="{site}"']
            self.nodes[site.name] = self._start(site.name, command)
        return self

    def __exit__(self, *_: object) -> None:
        for process in (*self.nodes.values(), self.link):
            end(process)

    def _start(self, name: str, command: list[str]) -> subprocess.Popen:
        with open(self.folder / f"{name}.log", "wb") as log:
            options = {"stdout": log, "stderr": subprocess.STDOUT, "start_new_session": True}
            return subprocess.Popen(
                [BIN / command[0], *command[1:]], cwd=self.folder, env=self.env, **options
            )

    def _wait_for(self, port: int, seconds: float = 120) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
            time.sleep(0.2)
        raise TimeoutError((self.folder / "superlink.log").read_text()[-2000:])

    def start(self, rounds: Path) -> subprocess.Popen:
        """Start the run of the plan in a folder."""
        command = ["flwr", "run", str(APP), "here", "--stream", "--run-config", f'folder="{rounds}"']
        return self._start("run", command)

    def run(self, rounds: Path, kill: str = "", seconds: float = 500) -> None:
        """Run the plan in a folder to its end; a node may be killed after the first round, in the second."""
        process, until = self.start(rounds), time.monotonic() + seconds
        wanted = read_json(rounds / PLAN)["rounds"]
        while time.monotonic() < until:
            record = read_json(rounds / ROUNDS, default={"rounds": [], "losses": []})
            if kill and record["rounds"]:
                end(self.nodes[kill], signal.SIGKILL)
                kill = ""
            if len(record["losses"]) > wanted:
                break
            if process.poll() is not None:
                raise RuntimeError((self.folder / "run.log").read_text()[-3000:])
            time.sleep(0.2)
        else:
            end(process)
            raise TimeoutError((self.folder / "run.log").read_text()[-3000:])
        process.wait(60)


def end(process: subprocess.Popen, how: int = signal.SIGTERM) -> None:
    """End a process that this module started, with what it started itself."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, how)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    with Loopback([Path(site).resolve() for site in sys.argv[2:]]) as here:
        here.run(Path(sys.argv[1]).resolve())
    print((Path(sys.argv[1]) / ROUNDS).read_text())
