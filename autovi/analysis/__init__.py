"""What depends on what in a traced program, and how."""
