"""Progress of long operations, on terminals, in notebooks and as lines of text."""
