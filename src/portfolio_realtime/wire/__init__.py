"""What goes over the wire: messages as types, frames as bytes."""
