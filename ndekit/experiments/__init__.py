"""Experiments that anybody can run: a table row each, and the pictures that go with it."""
