"""Labelled tasks read from disk, one file a layout, named in `sept.data.read`. No torch: plans read too."""
