"""The two apps that `flwr run` starts, by the names in ``app/pyproject.toml``; imported where Flower is."""

from xray_helpers.federated.apps import build_client, build_server

client = build_client()
server = build_server()
