"""What making things on this machine takes beside the provider itself: device, memory of what is not decoded, sizes."""
