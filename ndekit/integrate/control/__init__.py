"""Step size controllers: their rule as a program, the scaled error that they compare with one, and
the times of a grid that are the user's. In comes a controller of diffrax, a user's or ours; out go
verdicts and times, with the derivatives that these have.
"""
