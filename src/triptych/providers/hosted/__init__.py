"""What hosts of any model share: cards out of their own schemas, and results out of any answer."""
