"""Brownian motion: what each step draws. In come a key and the ends of a step, out go increments
and Levy areas; adaptive steps are halves of halves of a cell, and the same whenever they are asked
for.
"""
