"""Where the images of a source lie: listings of (key, shard, offset, size), what identifies them, a reader of bytes.

A source is a folder of loose images, tars, zip archives or parquet files in one folder or behind one URL, or what a
text file lists; one module a layout, named in `layouts`. Listings feed the pool and the tasks.
"""
