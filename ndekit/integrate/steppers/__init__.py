"""How one step is taken, and taken again: explicit schemes unrolled from their tableau, diagonally
implicit ones by the implicit function theorem, any other by the solver's own `step`. In come the
dynamics, the ends of a step and the state before it; out goes a `Trial`.
"""
