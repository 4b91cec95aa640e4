"""The services' own coroutines under one seeded scheduler, in virtual time, on a made-up Valkey."""
