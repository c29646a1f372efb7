"""A look at a few rows before a search: does each image still give the vector that is stored for it?"""

from functools import partial

import numpy as np

from sept.data.pool import ConcatPool
from sept.errors import DataError
from sept.retrieval.features import Features
from sept.retrievers.encoder import Encoder

ROWS = 4  # spread over the pool
ALIKE = 0.99  # cosine of a vector and the same computed on another kind of hardware, at least


def spot_check(features: Features, pool: ConcatPool, encoder: Encoder) -> None:
    """Raises DataError naming the image where a row's vector is not its image's: one was moved or replaced."""
    readable = np.setdiff1d(np.linspace(0, features.rows - 1, ROWS).astype(np.int64), features.skipped)
    if not len(readable):
        return
    vectors, failures = encoder(partial(pool.image, side=encoder.preprocess.resize), readable.tolist())
    if failures:
        place, reason = failures[0]
        raise DataError(f"pool image {pool.key(int(readable[place]))} was embedded but cannot be read now: {reason}")
    cosine = (vectors * features.take(readable)).sum(axis=1)
    worst = int(cosine.argmin())
    if cosine[worst] < ALIKE:
        raise DataError(
            f"pool image {pool.key(int(readable[worst]))} gives another vector than the one stored for row "
            f"{readable[worst]} (cosine {cosine[worst]:.3f}): images were replaced; embed again with "
            "store.force=[pool,features]"
        )
