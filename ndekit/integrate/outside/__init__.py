"""What is done outside the engine's loop: solves in diffrax's own loop with a recorder of costs,
and costs that are read after a solve, at drawn times or of a step that is made once more.
"""
