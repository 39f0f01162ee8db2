"""The two apps that `flwr run` starts, by the names in ``app/pyproject.toml``; imported where Flower is."""

import os

from xray_helpers.federated.apps import ONE_THREAD, build_client, build_server

os.environ |= ONE_THREAD  # before TensorFlow is imported
client = build_client()
server = build_server()
