"""The programs that are compared. Each runs as its own process and prints its figures as a line of JSON."""
