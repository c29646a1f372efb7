"""The embedded world: procedurally drawn images in domains of fine-grained classes, written as real JPEGs.

Classes differ in structure, never in colour; each domain keeps its palette, ground and figure-ground polarity.
"""
