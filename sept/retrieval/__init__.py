"""From a pool to a selection: feature store, exact search, Algorithm 1, and a look at what was found."""
