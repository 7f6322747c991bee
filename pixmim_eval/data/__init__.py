"""Where images and labels come from."""

from pixmim_eval.data.sources import open_manifest

__all__ = ["open_manifest"]
