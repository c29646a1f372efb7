"""Random images of the pool's clusters that the task falls into."""

import numpy as np

from sept.retrieval.cluster import by_mass, centroids, nearest
from sept.retrieval.features import IntArray
from sept.selectors.context import SelectionContext

CLUSTER_SAMPLE = 100_000  # pool images that the clusters are found on
CLUSTERS, LEAST_PER_CLUSTER = 1_000, 20  # clusters, fewer where the sample has less for each


def cluster(context: SelectionContext) -> IntArray:
    """Random rows of the clusters that the task's images fall into, in proportion to how many do (k-means over the pool
    and balanced draws, as large curated data sets are made; Vo et al. 2024 sample the clusters of their own pool).

    Where those clusters hold too little, the ones next to the task follow whole, nearest first. Two passes: a sample's
    for the clusters, one for the cluster of every row; 4 N bytes.
    """
    sample = context.features.take(context.sample(CLUSTER_SAMPLE, "cluster"))
    count = max(1, min(CLUSTERS, len(sample) // LEAST_PER_CLUSTER))
    centres = centroids(sample, count, context.seed, context.device)
    label = np.full(context.features.rows, -1, dtype=np.int32)
    for rows, vectors in context.blocks():
        label[rows] = nearest(vectors, centres, context.device)[0]
    mass = np.bincount(nearest(context.queries, centres, context.device)[0], minlength=count)
    closeness = (context.queries @ centres.T).max(axis=0)
    return by_mass(label, mass, closeness, context.budget, context.seed)
