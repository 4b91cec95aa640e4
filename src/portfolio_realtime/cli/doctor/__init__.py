"""`portfolio-realtime doctor`: does all that we need work, and what to do about what does not?"""
