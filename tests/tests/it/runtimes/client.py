"""One call to an API, by the library that is named: all that a bot would write."""
import sys

library, url = sys.argv[1:]
host = url.split("/")[2]

if library == "urllib":
    import urllib.request
    urllib.request.urlopen(url).read()
elif library == "requests":
    import requests
    requests.get(url)
elif library == "httpx":
    import httpx
    httpx.get(url)
elif library == "aiohttp":
    import aiohttp
    import asyncio

    async def call():
        async with aiohttp.ClientSession() as session:
            async with session.get(url) as answer:
                await answer.read()
    asyncio.run(call())
elif library == "urllib3":
    import urllib3
    urllib3.PoolManager(retries=False).request("GET", url)
elif library == "boto3":
    import boto3
    from botocore.config import Config
    config = Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"})
    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=url, config=config, **keys).list_buckets()
elif library == "grpcio":
    import grpc
    import time
    channel = grpc.secure_channel(host + ":443", grpc.ssl_channel_credentials())
    try:
        channel.unary_unary("/v1/Call")(b"", timeout=5)
    except grpc.RpcError:
        # It closes within the handshake, without a word: who looks at what it reads comes after that, and a service is still there.
        time.sleep(2)
        raise
elif library == "openai":
    import openai
    openai.OpenAI(api_key="none", base_url=url, max_retries=0).models.list()
elif library == "anthropic":
    import anthropic
    client = anthropic.Anthropic(api_key="none", base_url=url, max_retries=0)
    client.models.list()
elif library == "stripe":
    import stripe
    stripe.StripeClient("none", base_addresses={"api": "https://" + host}).v1.balance.retrieve()
else:
    raise SystemExit("no such library: " + library)
