"""Read this instead of a tutorial: each test is one idea, told with the whole system running."""
