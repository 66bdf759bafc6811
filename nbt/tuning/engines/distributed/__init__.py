"""What an engine on several machines needs, whichever library starts its workers."""
