#!/usr/bin/env bash
# Starts a Slurm of this machine alone (as root on Debian), installs what clusters need, and runs tests/cluster on both.
set -euo pipefail
cd "$(dirname "$0")/../.."
status=0
tests/cluster/slurm.sh start || status=$?
if [ "$status" = 3 ]; then
  echo "tests/cluster are not run: Slurm cannot be had here."
  exit 0
fi
[ "$status" = 0 ] || exit "$status"
trap 'tests/cluster/slurm.sh stop' EXIT
make cluster
XRAY_HELPERS_CLUSTER=1 .venv/bin/python -m pytest tests/cluster --durations=5
