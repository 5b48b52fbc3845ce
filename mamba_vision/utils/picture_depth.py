"""What stands for the third axis of a picture, and tells it from a scan of one slice."""

PICTURE_DEPTH = 999.0  # mm: nnU-Net's for files that have no third axis, so that slices of 2-D data never mix
