"""Experiments that anybody can run: a table row each, and the pictures that go with it.

Each is a file, called as the user types it, with everything that is its own: data, task and
configurations. `catalogue` lists them, and `harness` is what they all go through.
"""

from . import catalogue as catalogue

__all__ = ["catalogue"]
