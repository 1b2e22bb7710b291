"""Explorer: the latent space of a run as a page on this machine, to look around in.

What the page shows is computed in `explored`, written as HTML in `shown`, arranged in `page` and
served in `server`.
"""

from pyro_vae.explorer.explored import Explored, PriorDraws, Reference

__all__ = ["Explored", "PriorDraws", "Reference"]
