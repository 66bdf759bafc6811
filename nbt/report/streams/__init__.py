"""Reports of streams of tasks: pages for people and a file for programs."""
