"""The way back: the recorded steps walked from the last to the first, one vjp each. In come a
`Recording` and the cotangents of an `Outcome`, out go those of the `Operands`. The solve as a JAX
primitive, which knows both ways, stands here.
"""
