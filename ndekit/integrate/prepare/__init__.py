"""From a user's arguments to a `Problem`, and from its `Outcome` to what diffrax returns. In come
terms, a solver, a controller and times as diffrax has them, prepared by diffrax or, in the most
common case, here.
"""
