"""Sweeps: many runs of one recipe, each with other options or another seed, and their table.

A trial is a few commands of the command line, in a folder of its own; an engine runs trials.
"""
