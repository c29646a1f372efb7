"""Images in: sources, pools, tasks, few-shot draws, decoding, augmentation, and the embedded world."""


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Whole batches in an epoch; one, of all samples, when there are fewer than a batch."""
    return samples // min(batch_size, samples)
