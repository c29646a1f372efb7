"""Where the images of a source lie: listings of (key, shard, offset, size), what identifies them, a reader of bytes.

A source is a folder of loose images, tars, zip archives or parquet files in one folder or behind one URL, or what a
text file lists; one module a layout, gathered in `layouts`. Listings feed the pool and the tasks.
"""

from sept.data.sources.digest import digest_listing
from sept.data.sources.entry import Absent, Entry
from sept.data.sources.files import Root, head_and_tail, is_url
from sept.data.sources.find import expand_braces, find_tars
from sept.data.sources.folder import list_folder
from sept.data.sources.layouts import KINDS, Kind, identify, root
from sept.data.sources.reader import Reader
from sept.data.sources.scan import scan, scan_in_parallel
from sept.data.sources.tables import scan_shards
from sept.data.sources.tars import index_tar, list_tars

__all__ = [
    "KINDS",
    "Absent",
    "Entry",
    "Kind",
    "Reader",
    "Root",
    "digest_listing",
    "expand_braces",
    "find_tars",
    "head_and_tail",
    "identify",
    "index_tar",
    "is_url",
    "list_folder",
    "list_tars",
    "root",
    "scan",
    "scan_in_parallel",
    "scan_shards",
]
