"""The compiler: a Python function of tensors captured as one graph, and compiled for the CPU or a GPU.

It knows tensors and graphs only. Nothing here imports a model, a data set or an objective.
"""
