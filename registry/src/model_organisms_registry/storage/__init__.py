"""Where bytes and rows are kept: catalog, blobs, keys."""
