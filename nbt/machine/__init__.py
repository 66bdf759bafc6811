"""What this process may use of the machine or container: cores and memory."""
