"""The compiler: a function of tensors captured as one graph, and compiled for CPU or GPU.

It knows tensors and graphs only. Nothing here imports a model, a data set or an objective.

``PYRO_VAE_CPP=off`` in the environment turns our own C++ off (`cpp`): the matrix products
(`matmul`), the one function that updates all parameters (`optimizer`), and the one library for all
kernels of a graph. Torch's own code then does the same, more slowly and equal within rounding.
The library runs without ``inductor.py``, ``cpp.py``, ``matmul.py`` and the two ``.cpp`` files too:
graphs are then interpreted, to the same bits as eager.
"""
