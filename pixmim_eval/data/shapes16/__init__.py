"""shapes16: the built-in data set, rendered when it is read. 16 shapes x 16 textures, deterministic from (seed, row).

In train and val the texture goes with the shape in 80 % of the images, so that a texture short-cut exists; the variants
take the two apart: `cue-conflict` (another class's texture), `sketch` (outlines only), `rendition` (flat, few levels,
painted, cartoon), `hard` (occlusion, clutter, extreme pose, low contrast). Every image has its object's box and mask.
"""

from pixmim_eval.data.shapes16.dataset import Rendering, Shapes16Source, contact_sheet, manifest, render
from pixmim_eval.data.shapes16.labels import VARIANTS, shapes, textures
from pixmim_eval.data.shapes16.shapes import SHAPES
from pixmim_eval.data.shapes16.textures import TEXTURES

__all__ = [
    "SHAPES",
    "TEXTURES",
    "VARIANTS",
    "Rendering",
    "Shapes16Source",
    "contact_sheet",
    "manifest",
    "render",
    "shapes",
    "textures",
]
