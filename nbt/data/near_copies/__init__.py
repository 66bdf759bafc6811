"""Near copies: images that are the same picture but for compression, size and a crop of a few per cent."""
