"""Makes what the tests use at a server that checks signatures from then on, and prints the key of its user."""

import json
import os
import sys

import boto3
import urllib3

urllib3.disable_warnings()
endpoint, actions = sys.argv[1], int(sys.argv[2])
boto3.setup_default_session(
    aws_access_key_id="nobody", aws_secret_access_key="nothing", region_name="eu-central-1"
)
client = lambda service: boto3.client(service, endpoint_url=endpoint, verify=False)
everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
trust = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}],
}
iam = client("iam")
iam.create_user(UserName="host")
iam.put_user_policy(UserName="host", PolicyName="all", PolicyDocument=json.dumps(everything))
key = iam.create_access_key(UserName="host")["AccessKey"]
role = iam.create_role(RoleName="reports", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
iam.put_role_policy(RoleName="reports", PolicyName="all", PolicyDocument=json.dumps(everything))
s3 = client("s3")
s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
# From here on each call is checked.
for _ in range(actions - 6):
    s3.list_buckets()
try:
    s3.list_buckets()
    sys.exit("the server does not check signatures")
except s3.exceptions.ClientError as error:
    assert error.response["Error"]["Code"] in ("InvalidAccessKeyId", "InvalidClientTokenId"), error
print(json.dumps({"id": key["AccessKeyId"], "secret": key["SecretAccessKey"], "role": role["Arn"]}))
