"""The exception that names why a file gives no picture."""


class UnreadableError(Exception):
    """Why a file gives no picture, as a phrase for the manifest's column ``reason``."""
