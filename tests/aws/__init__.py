"""The templates for AWS, and what they make of the services."""
