"""From an image file to an aligned, matted and labelled head-and-shoulders crop.

``decoding`` reads files, ``detection`` and ``landmarks`` find the face, ``crop`` levels it,
``segmentation`` tells background, skin, hair and clothing apart, ``matte`` gives the soft edge.
Coordinates are pixels with centres at +0.5, x first.
"""
