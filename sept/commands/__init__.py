"""What `sept train` and `sept search` do, and train.py and search.py of the clone."""
