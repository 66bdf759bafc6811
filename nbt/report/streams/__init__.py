"""Reports of streams of tasks: pages for people and a JSON file for programs."""
