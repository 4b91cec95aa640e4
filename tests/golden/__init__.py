"""Every situation of an account as one file, with the figures that were worked out by hand."""
