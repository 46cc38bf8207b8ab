"""Video prior ``liveportrait``: implicit keypoints warp a portrait's features (paper section 3.3).

Own implementation of the inference side of LivePortrait (arXiv 2407.03168). Shapes in this room:
B batch, K = 21 implicit keypoints, T frames, V views; a feature volume is (C, D, H, W). Keypoints
are (x, y, z), x right, y down, z into the picture, in the [-1, 1] volume of the crop; points are
row vectors, so a rotation acts as ``points @ rotation``.
"""
