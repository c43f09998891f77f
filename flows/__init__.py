"""What a user starts: Prefect flows over the tasks, and the command line."""
