"""What goes over streams: messages, and who has read how far."""
