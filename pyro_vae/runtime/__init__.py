"""Run a program on data: devices, random numbers, checks, traces, weights, memory.

A program meets data here and nowhere else. No score, objective or figure lives here.
"""
