"""The programs that are compared. Each is a process of its own and prints its figures as one line of JSON."""
