"""The services on AWS: CloudFormation templates from CDK, task definitions, and what checks them.

`make aws-check`; docs/deploy/aws.md. Only `stack/` needs the CDK, everything else runs with Python alone.
"""
