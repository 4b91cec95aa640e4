"""What strangers may send: random bytes, broken frames, odd messages. Nothing may crash, leak or surprise."""
