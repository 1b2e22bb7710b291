"""Running a program on data: devices, random numbers, checks, traces, log-weights and memory.

A program meets data here and nowhere else. No score, objective or figure lives here.
"""
