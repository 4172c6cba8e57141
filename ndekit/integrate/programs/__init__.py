"""Programs: a function traced once, read, changed and run again. Here they are cut by what depends
on the time alone, linearised with notes, kept from being computed twice, and mapped over lanes.
In come functions and jaxprs, out go functions of arrays. Nothing here knows of
differential equations.
"""
