"""Several processes that train one model: whose rows are whose, sums over all, one that speaks.

Nothing here knows a model; the engine is `torch.distributed`.
"""
