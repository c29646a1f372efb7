"""Segmentation tasks one file a layout. torch is needed by `views` alone."""
