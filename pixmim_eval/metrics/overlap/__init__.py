"""Foreground overlap: how much of an object a crop keeps, exactly and image by image.

A crop's law (laws.py) says how its boxes lie for an image size, as few nodes with weights; an object is a set of
disjoint rectangles (rectangles.py), or of pixels. Given a node, rows and columns are independent, so that the expected
overlap is a sum of products (expectation.py). Crops that were drawn are measured too (drawn.py): for distributions
(quantiles.py), for patches, and as a check.
"""

from __future__ import annotations

from pixmim_eval.metrics.overlap.drawn import count_visible, measure_crops, measure_patches, measure_pixels
from pixmim_eval.metrics.overlap.expectation import Expected, expect_pixels, expect_rectangles
from pixmim_eval.metrics.overlap.laws import CenterCropLaw, CropLaw, Nodes, RandomResizedCropLaw, SimpleResizedCropLaw
from pixmim_eval.metrics.overlap.quantiles import quantile_intervals
from pixmim_eval.metrics.overlap.rectangles import Cells, sum_by_image, unite

__all__ = [
    "Cells",
    "CenterCropLaw",
    "CropLaw",
    "Expected",
    "Nodes",
    "RandomResizedCropLaw",
    "SimpleResizedCropLaw",
    "count_visible",
    "expect_pixels",
    "expect_rectangles",
    "measure_crops",
    "measure_patches",
    "measure_pixels",
    "quantile_intervals",
    "sum_by_image",
    "unite",
]
