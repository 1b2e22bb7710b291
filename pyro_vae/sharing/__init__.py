"""Share a run: its parts as graphs that need no Pyro, and its folder on the Hugging Face hub.

What leaves the machine is written here. What comes from elsewhere is read by
`pyro_vae.checkpoint`, which runs none of it.
"""

from pyro_vae.sharing.card import card
from pyro_vae.sharing.export import Exported, export, load_exported
from pyro_vae.sharing.push import push, shared_files

__all__ = ["Exported", "card", "export", "load_exported", "push", "shared_files"]
