"""Amazon EC2, and what speaks like it, through libcloud."""
