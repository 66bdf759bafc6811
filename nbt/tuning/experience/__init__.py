"""Experience: learning curves recorded on other tasks."""
