"""Detection tasks read from their official files, one file a layout. torch is needed by `targets` and `crops` alone."""
