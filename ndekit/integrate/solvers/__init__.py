"""Solvers of diffrax's interface: those that we add (SOSRI, reversible ones, AutoSwitch), and what
we set right in diffrax's own. In comes a solver, out goes one that diffrax could run as well.
"""
