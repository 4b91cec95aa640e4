"""Valkey in ElastiCache: a primary with replicas, and a user for each service with its least rights."""

import aws_cdk as cdk
from aws_cdk import aws_elasticache as elasticache
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct
from deploy.aws.services import SERVICES, VALKEY_KEY
from deploy.aws.sizes import SNAPSHOT_DAYS, VALKEY_FAMILY, VALKEY_PORT, VALKEY_VERSION, Size
from deploy.aws.stack.common import unique_suffix
from deploy.aws.stack.network import Network
from deploy.aws.valkey_users import valkey_users

PASSWORD_LENGTH = 64  # ElastiCache takes 16 to 128
# In UTC: at night in New York on a Sunday, and never both at once.
SNAPSHOT_WINDOW = "06:00-07:00"
MAINTENANCE_WINDOW = "sun:07:30-sun:08:30"


class Valkey(Construct):
    """The replication group; `secrets` holds the password of each service's user."""

    def __init__(self, scope: Construct, size: Size, network: Network) -> None:
        super().__init__(scope, "Valkey")
        self.secrets: dict[str, secretsmanager.CfnSecret] = {}
        users = [self._user("default", "off resetchannels -@all")]  # no one logs in without a name
        for service in SERVICES:
            user = valkey_users().user_of[service.name]
            users.append(self._user(user, valkey_users().rights[user]))
        group = elasticache.CfnUserGroup(
            self,
            "Users",
            engine="valkey",
            user_group_id=cdk.Fn.join("-", ["portfolio", unique_suffix()]),
            user_ids=[user.ref for user in users],
        )
        self.replication_group = self._replication_group(size, network, group)

    def _user(self, name: str, rights: str) -> elasticache.CfnUser:
        secret = secretsmanager.CfnSecret(
            self,
            f"{name.capitalize()}Password",
            name=cdk.Fn.sub("${AWS::StackName}/valkey-" + name),
            description=f"JSON with the key {VALKEY_KEY}: of Valkey's user {name}",
            generate_secret_string=secretsmanager.CfnSecret.GenerateSecretStringProperty(
                secret_string_template="{}",  # noqa: S106  # nothing yet
                generate_string_key=VALKEY_KEY,
                password_length=PASSWORD_LENGTH,
                exclude_punctuation=True,
            ),
        )
        self.secrets[name] = secret
        password = cdk.Fn.sub(
            "{{resolve:secretsmanager:${Secret}:SecretString:" + VALKEY_KEY + "}}", {"Secret": secret.ref}
        )
        return elasticache.CfnUser(
            self,
            f"{name.capitalize()}User",
            engine="valkey",
            user_id=cdk.Fn.join("-", [name, unique_suffix()]),
            user_name=name,
            access_string=rights,
            authentication_mode={"Type": "password", "Passwords": [password]},
        )

    def _replication_group(
        self, size: Size, network: Network, users: elasticache.CfnUserGroup
    ) -> elasticache.CfnReplicationGroup:
        subnets = elasticache.CfnSubnetGroup(
            self, "Subnets", description="Valkey: no way out", subnet_ids=network.valkey_subnets
        )
        parameters = elasticache.CfnParameterGroup(
            self,
            "Parameters",
            cache_parameter_group_family=VALKEY_FAMILY,
            description="Nothing that was written is evicted",
            properties={"maxmemory-policy": "noeviction"},  # the default evicts keys with an expiry
        )
        group = elasticache.CfnReplicationGroup(
            self,
            "ReplicationGroup",
            replication_group_description="State of portfolio-realtime",
            engine="valkey",
            engine_version=VALKEY_VERSION,
            cache_node_type=size.valkey_node,
            cache_parameter_group_name=parameters.ref,
            cache_subnet_group_name=subnets.ref,
            port=VALKEY_PORT,
            num_node_groups=1,
            replicas_per_node_group=size.replicas,
            automatic_failover_enabled=True,
            multi_az_enabled=True,
            at_rest_encryption_enabled=True,
            transit_encryption_enabled=True,
            transit_encryption_mode="required",
            user_group_ids=[users.ref],
            security_group_ids=[network.groups.valkey.attr_group_id],
            snapshot_retention_limit=SNAPSHOT_DAYS,
            snapshot_window=SNAPSHOT_WINDOW,
            preferred_maintenance_window=MAINTENANCE_WINDOW,
            auto_minor_version_upgrade=True,
        )
        group.apply_removal_policy(cdk.RemovalPolicy.SNAPSHOT)
        return group
