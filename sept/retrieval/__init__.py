"""From a pool to a selection: feature store, exact search, Algorithm 1, and galleries of the results."""
