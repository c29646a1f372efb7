"""What each step of the pipeline does: one file a stage, called by the store with the step's inputs and a folder.

Heavy packages are imported here and never by `sept.pipeline`, so that a plan needs none of them.
"""
