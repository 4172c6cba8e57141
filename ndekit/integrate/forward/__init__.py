"""The way forward: a `Problem` and its `Operands` go in, attempts are made until every lane has
arrived, and an `Outcome` comes out, with a `Recording` if somebody will go back.
"""
