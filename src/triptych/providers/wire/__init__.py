"""What all vendors share: one way to send, wait, fetch and save, and to keep keys at home."""
