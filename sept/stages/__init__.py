"""The inputs and the work of each step of the pipeline: one file per stage. torch is imported when one is built."""

# Bump a stage's number in the commit that changes its output, and name it in CHANGELOG.md.
VERSIONS = {
    "pool": 1,
    "task": 1,
    "retriever": 3,
    "features": 5,
    "index": 2,
    "queries": 3,
    "fingerprints": 1,
    "selection": 4,
    "subset": 4,
    "copies": 1,
    "weights": 2,
    "pretrain": 2,
    "finetune": 6,
    "detect": 1,
    "segment": 1,
}
