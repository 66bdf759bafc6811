"""Dataset readers, one module per layout."""
