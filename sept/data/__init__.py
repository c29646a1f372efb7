"""Images in: sources, pools, tasks, few-shot draws, decoding, augmentation, and the embedded world."""
