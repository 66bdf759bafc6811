"""Building blocks of an engine on several machines, independent of the library that starts the workers."""
