"""Experiments that anybody can run: a file each, named as a user types it."""

from . import catalogue as catalogue

__all__ = ["catalogue"]
