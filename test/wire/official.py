"""The published Python client against a running Kiln: base URL and key are all that differs. Prints `ok` at the end."""
import sys
import time

from miosa import Miosa

base_url, key = sys.argv[1], sys.argv[2]
client = Miosa(key, base_url=f"{base_url}/api/v1")

sandbox = client.sandboxes.create()
sandbox.write_file("/workspace/index.html", "<h1>from python</h1>")
deployment = client.deployments.create(name="python app")
for number in (1, 2):
    published = client.deployments.publish(deployment.id, source_sandbox_id=sandbox.id)
    versions = client.deployments.versions(deployment.id)
    for _ in range(200):
        version = versions.get(published.version.id)
        if version.state.value in ("ready", "failed"):
            break
        time.sleep(0.1)
    assert version.state.value == "ready", version
    assert version.version_number == number
live = client.deployments.get(deployment.id)
assert live.active_version_id == version.id, live
back = client.deployments.rollback(deployment.id)
assert back.active_version_id != version.id, back
assert versions.promote(version.id).active_version_id == version.id
releases = client.deployments.releases(deployment.id).list()
assert releases and releases[0].id
client.deployments.releases(deployment.id).promote(releases[0].id)
assert client.deployments.runtime_instances(deployment.id).list() == []
client.deployments.set_env(deployment.id, {"GREETING": "hello"})
assert client.deployments.list_env(deployment.id)[0]["name"] == "GREETING"
client.deployments.redeploy(deployment.id)
domains = client.deployments.domains(deployment.id)
domain = domains.add("python.example.com")
assert domains.list()[0]["id"] == domain["id"]
domains.delete(domain["id"])
client.deployments.delete(deployment.id)
try:
    client.deployments.get(deployment.id)
    raise AssertionError("still there")
except Exception as error:
    assert "deployment" in str(error).lower(), error
print("ok")
