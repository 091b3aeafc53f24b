"""`kubectl create token` and what the token is good for."""

from __future__ import annotations

import json

import pytest
from kubectls import Kubectl


async def test_a_created_token_authenticates_as_its_service_account(kubectl: Kubectl) -> None:
    if kubectl.is_old:
        pytest.skip("kubectl 1.20 has no `create token`")
    await kubectl("create", "serviceaccount", "robot")
    namespace = await kubectl("config", "view", "--minify", "-o", "jsonpath={..namespace}")
    token = (await kubectl("create", "token", "robot", "--duration=20m")).strip()

    await kubectl("config", "set-credentials", "robot", f"--token={token}")
    who = json.loads(await kubectl("auth", "whoami", "--user=robot", "-o", "json"))["status"]["userInfo"]
    refused = await kubectl.run("get", "pods", "--user=robot")

    user = f"system:serviceaccount:{namespace}:robot"
    assert who["username"] == user
    assert f"system:serviceaccounts:{namespace}" in who["groups"]
    assert f'User "{user}" cannot list resource "pods"' in refused.err
    assert (
        await kubectl("auth", "can-i", "create", "selfsubjectreviews.authentication.k8s.io", "--user=robot") == "yes\n"
    )

    await kubectl("delete", "serviceaccount", "robot")
    gone = await kubectl.run("auth", "whoami", "--user=robot")
    assert "You must be logged in to the server" in gone.err
