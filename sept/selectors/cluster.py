"""Random images from the pool's clusters that contain task images."""

import numpy as np

from sept.retrieval.cluster import by_mass, centroids, nearest
from sept.retrieval.features import IntArray
from sept.selectors.context import SelectionContext

CLUSTER_SAMPLE = 100_000  # pool images that are clustered
CLUSTERS, LEAST_PER_CLUSTER = 1_000, 20  # number of clusters; fewer if the sample has fewer images per cluster


def cluster(context: SelectionContext) -> IntArray:
    """Random rows of the clusters that the task's images fall into, in proportion to their number (k-means over the
    pool and balanced draws, as for large curated data sets; Vo et al. 2024 sample the clusters of their own pool).

    If those clusters hold too few, whole clusters follow, nearest to the task first. Two passes: over a sample to find
    the clusters, over all rows to assign them; 4 N bytes.
    """
    sample = context.features.take(context.sample(CLUSTER_SAMPLE, "cluster"))
    count = max(1, min(CLUSTERS, len(sample) // LEAST_PER_CLUSTER))
    centres = centroids(sample, count, context.seed, context.device)
    label = np.full(context.features.rows, -1, dtype=np.int32)
    for rows, vectors in context.blocks():
        label[rows] = nearest(vectors, centres, context.device)[0]
    mass = np.bincount(nearest(context.queries, centres, context.device)[0], minlength=count)
    closeness = (context.queries @ centres.T).max(axis=0)
    return by_mass(label, mass, closeness, context.wanted, context.seed)
