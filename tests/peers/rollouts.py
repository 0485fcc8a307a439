"""hawkBit's DDI API as rauc-hawkbit speaks it (a client of 2020 for the hosted services of that time), judged by openapi.yaml."""

import asyncio
import hashlib
import json
import os
import tempfile
import urllib.request

import aiohttp
import jsonschema
import yaml
from rauc_hawkbit.ddi.cancel_action import CancelStatusExecution, CancelStatusResult
from rauc_hawkbit.ddi.client import (
    APIError,
    ConfigStatusExecution,
    ConfigStatusResult,
    DDIClient,
)
from rauc_hawkbit.ddi.deployment_base import (
    DeploymentStatusExecution,
    DeploymentStatusResult,
)
from report import CONTROL, READY, check, control, request, trusting

SPEC = yaml.safe_load(open(os.environ["SPEC"], encoding="utf-8"))
TARGET = "peer-box"
BUNDLE = bytes(range(256)) * 4000


def must_be(schema, value):
    """Fails unless `value` is what `#/components/schemas/{schema}` says."""
    jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": SPEC["components"]},
    ).validate(value)


def order(query, body=BUNDLE):
    """Orders a roll-out for the peer's target and returns its number as text."""
    made = urllib.request.Request(f"{CONTROL}/rollouts?controller={TARGET}&{query}", data=body, method="POST")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(made) as answer:
        return str(json.load(answer)["id"])


def rollout(number):
    return next(one for one in control("GET", "/rollouts")["rollouts"] if str(one["id"]) == number)


def run(work, token=None):
    """Runs `work(ddi)` with a client of the foreign library."""

    async def inner():
        connector = aiohttp.TCPConnector(ssl=trusting())
        async with aiohttp.ClientSession(connector=connector) as session:
            token_ = token or os.environ["TOKEN"]
            ddi = DDIClient(session, READY["api"], True, token_, "DEFAULT", TARGET)
            return await work(ddi)

    return asyncio.run(inner())


def refused(work, status, token=None):
    try:
        run(work, token)
    except APIError as error:
        assert str(error).startswith(str(status)), error
    else:
        raise AssertionError(f"not answered {status}")


async def poll(ddi):
    base = await ddi()
    must_be("RolloutPoll", base)
    return base


def action_of(base, relation):
    return base["_links"][relation]["href"].split("/")[-1].split("?")[0]


with check("rollouts: a wrong token is refused"):
    refused(lambda ddi: ddi(), 401, "wrong")

with check("rollouts: a new target is asked who it is, and only once"):
    base = run(poll)
    assert base["config"]["polling"]["sleep"] == "00:05:00"
    assert "configData" in base["_links"] and "deploymentBase" not in base["_links"]
    execution, result = ConfigStatusExecution.closed, ConfigStatusResult.success
    run(lambda ddi: ddi.configData(execution, result, version="1", hardware="peer"))
    assert "configData" not in run(poll)["_links"]
    known = next(one for one in control("GET", "/controllers")["controllers"] if one["id"] == TARGET)
    assert known["attributes"] == {"version": "1", "hardware": "peer"}

with check("rollouts: a deployment is read, downloaded, reported and closed"):
    number = order("version=2.0")

    async def whole(ddi):
        base = await poll(ddi)
        link = base["_links"]["deploymentBase"]["href"]
        assert action_of(base, "deploymentBase") == number
        resource = link.split("?c=")[1]
        document = await ddi.deploymentBase[number](resource)
        must_be("Deployment", document)
        deployment = document["deployment"]
        assert deployment["download"] == deployment["update"] == "forced"
        artifact = deployment["chunks"][0]["artifacts"][0]
        with tempfile.NamedTemporaryFile() as file:
            md5 = await ddi.get_binary(artifact["_links"]["download"]["href"], file.name)
            assert file.read() == BUNDLE
        assert md5 == artifact["hashes"]["md5"]
        assert artifact["hashes"]["sha256"] == hashlib.sha256(BUNDLE).hexdigest()
        feedback = ddi.deploymentBase[number].feedback
        proceeding, none = DeploymentStatusExecution.proceeding, DeploymentStatusResult.none
        await feedback(proceeding, none, ["half"], cnt=1, of=2)
        await feedback(DeploymentStatusExecution.closed, DeploymentStatusResult.success, ["done"])

    run(whole)
    assert rollout(number)["status"] == "finished"
    assert "installedBase" in run(poll)["_links"]

with check("rollouts: what is closed takes no further feedback"):
    closed, failure = DeploymentStatusExecution.closed, DeploymentStatusResult.failure
    refused(lambda ddi: ddi.deploymentBase[number].feedback(closed, failure), 410)
    assert rollout(number)["status"] == "finished"

with check("rollouts: an action of nobody's is not known"):
    refused(lambda ddi: ddi.deploymentBase["9999"]("0"), 404)

with check("rollouts: a failure closes the action"):
    number = order("version=2.1")
    run(poll)
    run(lambda ddi: ddi.deploymentBase[number].feedback(closed, failure, ["no"]))
    assert rollout(number)["status"] == "error"

with check("rollouts: a cancellation is asked for, refused once, and then taken"):
    number = order("version=2.2")
    run(poll)

    async def cancelled(ddi):
        control("PUT", f"/rollouts/{number}", {"cancel": True})
        base = await poll(ddi)
        assert action_of(base, "cancelAction") == number and "deploymentBase" not in base["_links"]
        document = await ddi.cancelAction[number]()
        must_be("Cancellation", document)
        return document["cancelAction"]["stopId"]

    stop_id = run(cancelled)
    rejected, none = CancelStatusExecution.rejected, CancelStatusResult.none
    run(lambda ddi: ddi.cancelAction[number].feedback(rejected, none, ["not now"]))
    assert "deploymentBase" in run(poll)["_links"]
    assert run(cancelled) == stop_id
    closed, success = CancelStatusExecution.closed, CancelStatusResult.success
    run(lambda ddi: ddi.cancelAction[number].feedback(closed, success))
    assert rollout(number)["status"] == "canceled"
    refused(lambda ddi: ddi.cancelAction[number].feedback(closed, success), 405)

with check("rollouts: ranges and If-Match are kept to, with hawkBit's unquoted ETag"):
    number = order("version=2.3")
    run(poll)
    url = f"{READY['api_url']}/DEFAULT/controller/v1/{TARGET}/softwaremodules/{number}/artifacts/comptoir-2.3.raucb"
    token = {"Authorization": f"TargetToken {os.environ['TOKEN']}"}

    def get(**headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return request(url, headers={**token, **named}, context=trusting())

    status, head, body = get()
    etag = hashlib.sha1(BUNDLE).hexdigest()
    assert (status, head["ETag"], body) == (200, etag, BUNDLE)
    status, head, body = get(Range="bytes=1000-", If_Match=etag)
    assert (status, body) == (206, BUNDLE[1000:])
    assert head["Content-Range"] == f"bytes 1000-{len(BUNDLE) - 1}/{len(BUNDLE)}"
    assert get(Range=f"bytes={len(BUNDLE)}-")[0] == 416
    assert get(Range="bytes=1000-", If_Match="other")[0] == 412
    status, head, _ = get(Accept="application/hal+json")
    md5 = request(url + ".MD5SUM", headers=token, context=trusting())[2].decode()
    assert md5 == f"{hashlib.md5(BUNDLE).hexdigest()}  comptoir-2.3.raucb"
