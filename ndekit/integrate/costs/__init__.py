"""What a solve is charged for: the contracts of costs, what they see of a step, and where they are
read. In comes a step with its stages and error estimate, out goes a number of each cost.
"""
