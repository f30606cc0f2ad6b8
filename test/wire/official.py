"""The published Python client against a running Kiln: base URL and key are all that differs. Prints `ok` at the end."""
import http.server
import sys
import threading
import time

from miosa import Miosa
from miosa.resources.webhooks import verify_signature

base_url, key = sys.argv[1], sys.argv[2]
client = Miosa(key, base_url=f"{base_url}/api/v1")


def until(what, look, within=30.0):
    end = time.time() + within
    while True:
        found = look()
        if found:
            return found
        assert time.time() < end, f"not within {within} s: {what}"
        time.sleep(0.1)


def first(iterator, wanted, trigger=None):
    """The first item of a stream that is wanted; `trigger` runs once the stream had time to begin."""
    found = []

    def read():
        for item in iterator:
            if wanted(item):
                found.append(item)
                return

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    if trigger is not None:
        time.sleep(1)
        trigger()
    thread.join(20)
    assert found, "the stream did not bring it within 20 s"
    return found[0]


def settled(deployment_id, version_id):
    versions = client.deployments.versions(deployment_id)

    def look():
        version = versions.get(version_id)
        return version if version.state.value in ("ready", "failed", "archived") else None

    version = until(version_id, look, 60)
    assert version.state.value != "failed", version
    return version


def refused(call, *words):
    try:
        call()
    except Exception as error:
        for word in words:
            assert word in str(error).lower() or word == getattr(error, "code", None), repr(error)
        return error
    raise AssertionError("was not refused")


def sandboxes():
    sandbox = client.sandboxes.create(name="official", env={"PLAIN": "seen"})
    assert client.sandboxes.get_by_name("official").id == sandbox.id
    assert client.sandboxes.get_or_create(name="official").id == sandbox.id
    assert sandbox.wait_until_ready() is not None or sandbox.state == "running"
    sandbox.write_file("/workspace/index.html", "<h1>then</h1>")
    sandbox.write_file("/workspace/a b#c/ü.bin", bytes(range(256)))
    assert sandbox.download("/workspace/a b#c/ü.bin") == bytes(range(256))
    assert sandbox.read_file("/workspace/index.html") == "<h1>then</h1>"
    assert sandbox.stat_file("/workspace/index.html")["size"] == 13
    assert any(entry["name"] == "index.html" for entry in sandbox.list_files()["entries"])
    assert sandbox.files.tree()["children"]
    result = sandbox.run("echo out; echo err >&2; exit 3")
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3), result
    streamed = [(event.type, event.data) for event in sandbox.exec_stream("echo $PLAIN")]
    assert streamed[0][1]["line"] == "seen" and streamed[-1][0] == "exit", streamed
    assert sandbox.get_logs(10)["lines"][-1] == "seen"
    late = first(sandbox.stream_logs(), lambda e: e.data.get("line") == "late", lambda: sandbox.run("echo late"))
    assert late.type == "log_line"
    change = first(
        sandbox.files.watch_dir("/workspace"),
        lambda e: e.path == "/workspace/new.txt",
        lambda: sandbox.write_file("/workspace/new.txt", "x"),
    )
    assert change.event == "created", change
    sandbox.env.set([{"key": "LATER", "value": "1"}])
    assert any(var["key"] == "LATER" for var in sandbox.env.list())
    assert sandbox.usage()["sandbox_id"] == sandbox.id
    sandbox.pause()
    assert sandbox.state == "paused"
    sandbox.resume()
    sandbox.extend(600)
    sandbox.update(tags=["a"], metadata={"m": 1})
    assert [s.id for s in client.sandboxes.list(tags=["a"])] == [sandbox.id]
    refused(sandbox.expose, "preview")
    return sandbox


def copies(sandbox):
    snapshot = sandbox.create_snapshot("before")
    assert snapshot["status"] == "ready" and snapshot["comment"] == "before", snapshot
    assert sandbox.snapshot().startswith("snp_")
    sandbox.write_file("/workspace/index.html", "<h1>now</h1>")
    assert snapshot["id"] in [s["id"] for s in sandbox.list_snapshots()]
    restored = sandbox.restore_snapshot(snapshot["id"])
    assert restored.id != sandbox.id and restored.read_file("/workspace/index.html") == "<h1>then</h1>"
    fork = sandbox.fork(name="twin", metadata={"f": 1})
    assert fork.read_file("/workspace/index.html") == "<h1>now</h1>"
    for one in (restored, fork):
        one.destroy()
        assert one.state == "destroyed"
    export = sandbox.create_export(["/workspace/index.html", "/workspace/a b#c"], label="both")
    assert len(export["files"]) == 2, export
    assert sandbox.download_export("/workspace/index.html") == b"<h1>now</h1>"
    assert sandbox.download_export(["/workspace/index.html", "/workspace/a b#c"])[:2] == b"\x1f\x8b"
    pinned = sandbox.deploy_snapshot(snapshot["id"], name="pinned")
    assert pinned["source_snapshot_id"] == snapshot["id"] and pinned["release_sandbox_id"], pinned
    settled(pinned["deployment"]["id"], pinned["version"]["id"])
    refused(lambda: client.sandboxes.get(pinned["release_sandbox_id"]).run("true"))
    sandbox.delete_snapshot(snapshot["id"])
    refused(lambda: sandbox.restore_snapshot(snapshot["id"]), "snapshot")


def static_deployment(sandbox):
    deployment = client.deployments.create(name="python app")
    for number in (1, 2):
        published = client.deployments.publish(deployment.id, source_sandbox_id=sandbox.id)
        version = settled(deployment.id, published.version.id)
        assert version.version_number == number
    live = client.deployments.get(deployment.id)
    assert live.active_version_id == version.id, live
    versions = client.deployments.versions(deployment.id)
    assert [v.version_number for v in versions.list()] == [2, 1]
    back = client.deployments.rollback(deployment.id)
    assert back.active_version_id != version.id, back
    assert versions.promote(version.id).active_version_id == version.id
    releases = client.deployments.releases(deployment.id)
    ids = [release.id for release in releases.list()]
    assert releases.get(ids[0]).id == ids[0]
    for release_id in (ids[0], ids[-1], ids[0]):
        assert releases.promote(release_id).active_release_id == release_id
    assert client.deployments.runtime_instances(deployment.id).list() == []
    client.deployments.set_env(deployment.id, {"GREETING": "hello"})
    assert client.deployments.list_env(deployment.id)[0]["name"] == "GREETING"
    assert client.deployments.update(deployment.id).id == deployment.id
    assert client.deployments.update(deployment.id, name="renamed").name == "renamed"
    assert deployment.id in [d.id for d in client.deployments.list()]
    assert "lines" in client.deployments.get_logs(deployment.id)
    assert client.deployments.list_builds(deployment.id)
    refused(lambda: client.deployments.migration_backup(deployment.id, ids[0]), "database")
    client.deployments.redeploy(deployment.id)
    domains = client.deployments.domains(deployment.id)
    domain = domains.add("python.example.com")
    assert domains.list()[0]["id"] == domain["id"]
    assert domains.verify(domain["id"])["state"] == "failed"
    domains.delete(domain["id"])
    flat = client.custom_domains.create(
        domain="flat.example.com", resource_type="deployment", resource_id=deployment.id
    )
    assert flat["id"] in [d["id"] for d in client.custom_domains.list()]
    client.custom_domains.delete(flat["id"])
    client.deployments.delete(deployment.id)
    refused(lambda: client.deployments.get(deployment.id), "deployment")
    refused(lambda: client.deployments.create(name=""), "name")


SERVER = """const http = require('node:http');
http.createServer((_, res) => res.end('dynamic')).listen(process.env.PORT, () => console.log('listening'));
"""


def dynamic_deployment():
    sandbox = client.sandboxes.create()
    sandbox.write_file("/workspace/server.js", SERVER)
    sandbox.write_file("/workspace/package.json", '{"name":"d","scripts":{"start":"node server.js"}}')
    done = sandbox.deploy(name="dynamic app", run_command="node server.js", health_check_path="/")
    settled(done["deployment"]["id"], done["version"]["id"])
    instances = client.deployments.runtime_instances(done["deployment"]["id"])
    instance = until("an instance is healthy", lambda: [i for i in instances.list() if i.state.value == "healthy"])[0]
    assert instances.get(instance.id).id == instance.id
    until("its log", lambda: "listening" in str(instances.logs(instance.id)))


def hooks_and_events():
    got = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((body, self.headers["miosa-signature"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook = client.webhooks.create(
        url=f"http://127.0.0.1:{server.server_port}/", events=["deployment.created"], retry_count=1
    )
    event = first(
        client.events.stream(types=["deployment.*"]),
        lambda e: "told" in str(e),
        lambda: client.deployments.create(name="told"),
    )
    assert "deployment.created" in str(event), event
    until("the webhook", lambda: got)
    body, signature = got[0]
    assert verify_signature(body, signature, hook["secret"])
    assert not verify_signature(body + b" ", signature, hook["secret"])
    assert client.webhooks.test(hook["id"])
    until("its log", lambda: len(client.webhooks.deliveries(hook["id"])) >= 2)
    client.webhooks.update(hook["id"], events=[])
    assert client.webhooks.get(hook["id"])["events"] == []
    client.webhooks.delete(hook["id"])
    assert client.webhooks.list() == []
    server.shutdown()


def keys():
    made = client.api_keys.create(name="reader", scopes=["deployments:read"])
    reader = Miosa(made["key"], base_url=f"{base_url}/api/v1")
    assert isinstance(reader.deployments.list(), list)
    refused(lambda: reader.deployments.create(name="no"), "scope")
    assert "key" not in [k for k in client.api_keys.list() if k["id"] == made["id"]][0]
    client.api_keys.delete(made["id"])
    refused(reader.deployments.list)


sandbox = sandboxes()
copies(sandbox)
static_deployment(sandbox)
dynamic_deployment()
hooks_and_events()
keys()
print("ok")
