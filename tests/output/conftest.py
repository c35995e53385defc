"""The live page makes what the commands make: its tests run them."""

from tests.cli.conftest import cli

__all__ = ["cli"]
