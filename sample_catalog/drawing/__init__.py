"""Draws the pictures of the sample catalogue: illustrated products, by Pillow and NumPy, with no photo anywhere.

A kind of product is a function that returns `Part`s, back to front: closed outlines in object units. [`draw`] fits them
into the frame and paints them.
"""

from acebert.sample_catalog.drawing.paint import COLOURS, PATTERNS
from acebert.sample_catalog.drawing.picture import KINDS, draw

__all__ = ["COLOURS", "KINDS", "PATTERNS", "draw"]
