"""The checks, one module for each question; every subclass of `Check` in here is made.

A module is found by lying here: nothing else names it.
"""
