"""Parts of the command `sept` that are in no other package: train and search (train.py, search.py), init, doctor."""
