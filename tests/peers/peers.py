"""The peers lane's checks. Every claim is one line; the last line counts them, and the exit status says the same."""

import argparse
import asyncio
import base64
import functools
import json
import os
import pathlib
import secrets
import shutil
import tempfile
import time
import traceback
import urllib.parse

import prometheus
from appliance import WORKSPACE, Appliance, Failed, build
from clients import CALL, SCHEMA, Bridge, Inspector, with_fastmcp
from processes import die_properly, undisturbed, wait_until

MODULE = WORKSPACE / "modules/catalog/prometheus"
TOOLS = ["alerts", "label_values", "labels", "query", "query_range", "rules", "series", "targets"]
QUERY_UP = {"module": "prometheus", "tool_name": "query", "arguments": {"query": "up"}}


class Checks:
    """Counts claims. A claim that does not hold is shown and ends nothing but itself."""

    def __init__(self):
        self.passed = self.failed = 0

    def run(self, claim, check, *arguments):
        try:
            check(*arguments)
        except Exception:
            self.failed += 1
            print(f"FAIL  {claim}\n{traceback.format_exc()}", flush=True)
        else:
            self.passed += 1
            print(f"ok    {claim}", flush=True)


def equal(found, expected):
    if found != expected:
        raise AssertionError(f"expected {expected!r}, found {str(found)[:1500]!r}")


def holds(condition, found):
    if not condition:
        raise AssertionError(f"found {str(found)[:1500]!r}")


def text_of(result):
    """The one text of a result, as JSON, and the note behind it that says what was left out."""
    [item] = result["content"]
    value, end = json.JSONDecoder().raw_decode(item["text"])
    return value, item["text"][end:].strip()


class Tools:
    """The eight tools, called by ada with `mcpist call` and compared with what Prometheus says itself."""

    def __init__(self, appliance, service):
        self.appliance, self.service = appliance, service

    def call(self, tool, **arguments):
        """A call's result. Repeated while the runner has not been told yet what was just decided."""

        def answer():
            try:
                return self.appliance.command("call", "prometheus", tool, json.dumps(arguments), "--mcp",
                                              self.appliance.socket("ada"))
            except Failed as error:
                if error.code == "not_loaded":
                    return None
                raise

        return wait_until(answer, "the runner to load what was decided")

    def ask(self, tool, **arguments):
        """A complete answer's value."""
        value, note = text_of(self.call(tool, **arguments))
        equal(note, "")
        return value

    def refused(self, tool, **arguments):
        """The error of a call that must fail."""
        try:
            found = self.call(tool, **arguments)
        except Failed as error:
            return error
        raise AssertionError(f"expected an error, found {found}")

    def query(self):
        answer = self.ask("query", query='up{job="self"} == 1')
        labels = {"__name__": "up", "instance": f"127.0.0.1:{self.service.port}", "job": "self"}
        equal(answer, {"type": "vector", "series": [{"labels": labels, "value": "1"}]})

    def query_none(self):
        equal(self.ask("query", query="up == 2").get("series", []), [])

    def query_at(self):
        moment = str(int(time.time()) - 86400)
        equal(self.ask("query", query="up", time=moment).get("series", []), [])
        [series] = self.ask("query", query="vector(time())", time=moment)["series"]
        equal(series["value"], moment)

    def query_range(self):
        end = int(time.time())
        answer = self.ask("query_range", query="vector(7)", start=str(end - 30), end=str(end), step="10s")
        equal(answer, {"series": [{"labels": {}, "points": [[end - back, "7"] for back in (30, 20, 10, 0)]}]})

    def series(self):
        answer = self.ask("series", match=["up", "prometheus_build_info"])
        names = sorted(series["__name__"] for series in answer["series"])
        equal(names, ["prometheus_build_info", "up"])

    def labels(self):
        equal(self.ask("labels", match=["up"]), {"labels": ["__name__", "instance", "job"]})
        answer = self.ask("labels")
        holds({"__name__", "job", "severity", "version"} <= set(answer["labels"]), answer)

    def label_values(self):
        equal(self.ask("label_values", label="job"), {"values": ["self"]})

    def label_values_of_names(self):
        # Prometheus has some more names of its own than the tool gives: then the answer says so.
        names = self.service.ask("/api/v1/label/__name__/values")[1]["data"]
        value, note = text_of(self.call("label_values", label="__name__"))
        equal(value, {"values": names[:200]})
        holds(bool(note) == (len(names) > 200), (len(names), note))
        answer = self.ask("label_values", label="__name__", match=['{__name__=~"peers:.*|up"}'])
        equal(answer, {"values": ["peers:up:sum", "up"]})

    def targets(self):
        [target] = self.ask("targets", state="active")["targets"]
        holds(target.pop("last_scrape").startswith("20"), target)
        equal(target, {"job": "self", "instance": f"127.0.0.1:{self.service.port}", "health": "up", "last_error": ""})

    def alerts(self):
        [alert] = self.ask("alerts")["alerts"]
        holds(alert.pop("since").startswith("20"), alert)
        holds(float(alert.pop("value")) == 7, alert)
        equal(alert, {"labels": {"alertname": "AlwaysFiring", "severity": "page"}, "state": "firing",
                      "summary": prometheus.SUMMARY})

    def rules(self):
        [group] = self.ask("rules")["groups"]
        equal(group["name"], "peers")
        recording, alerting = group["rules"]
        equal({name: recording[name] for name in ("name", "type", "query", "health")},
              {"name": "peers:up:sum", "type": "recording", "query": "sum(up)", "health": "ok"})
        equal(alerting, {"name": "AlwaysFiring", "type": "alerting", "query": "vector(7)", "health": "ok",
                         "state": "firing"})

    def rules_of_a_type(self):
        [group] = self.ask("rules", type="alert")["groups"]
        equal([rule["name"] for rule in group["rules"]], ["AlwaysFiring"])

    def bad_query(self):
        status, said = self.service.ask("/api/v1/query", query="up{")
        equal(status, 400)
        error = self.refused("query", query="up{")
        equal(error.code, "upstream_status")
        holds("status 400; the service's own text: " in error.message and said["error"] in error.message, error)

    def bad_argument(self):
        error = self.refused("query", expression="up")
        equal(error.code, "arguments_invalid")

    def write_is_no_tool(self):
        equal(self.refused("delete_series").code, "unknown_tool")

    def many_series(self):
        value, note = text_of(self.call("query", query='{__name__=~"go_.*|prometheus_.*"}'))
        holds(0 < len(value["series"]) <= 50, value)
        holds(all(set(series) == {"labels", "value"} for series in value["series"]), value)
        holds(note.startswith("[not complete: "), note)

    def redacted(self, password):
        """A service that gives the password back, in an answer and in an error, has it taken out."""
        ask = functools.partial(self.appliance.call_unrecorded, "ada", "prometheus", "query")
        answer, _ = text_of(ask({"query": f'label_replace(up, "echo", "{password}", "", "")'}))
        equal(answer["series"][0]["labels"]["echo"], "[redacted]")
        status, said = self.service.ask("/api/v1/query", query=f'label_replace(up, "a", "", "job", "{password}(")')
        holds(status >= 400 and password in said["error"], "Prometheus no longer repeats what it refuses")
        refused = ask({"query": f'label_replace(up, "a", "", "job", "{password}(")'})
        equal(refused["isError"], True)
        shown = json.dumps(refused, ensure_ascii=False)
        holds("the service's own text" in shown and "[redacted]" in shown and password not in shown,
              shown.replace(password, "THE PASSWORD"))

    def other_authority(self):
        self.appliance.bind("--url", self.service.url("/api/v1"), "--ca", self.service.other_ca)
        error = self.refused("query", query="up")
        equal(error.code, "upstream_tls")

    def pinned_key(self):
        self.appliance.bind("--url", self.service.url("/api/v1"), "--pin", self.service.pin())
        self.query()

    def outside_the_prefix(self):
        self.appliance.bind("--url", self.service.url("/api/v1/labels"), "--ca", self.service.ca)
        equal(self.refused("query", query="up").code, "binding_refused")
        self.labels()

    def bound_again(self):
        self.appliance.bind("--url", self.service.url("/api/v1"), "--ca", self.service.ca)
        self.query()

    def wrong_password(self, right, wrong):
        self.appliance.put_password(prometheus.USER, wrong)
        try:
            error = self.refused("query", query="up")
            equal(error.code, "credential_suspect")
            holds("401" in error.message, error)
        finally:
            version = self.appliance.put_password(prometheus.USER, right)["version"]
        equal(version, 3)
        self.query()

    def bob_sees_nothing(self):
        bob = self.appliance.socket("bob")
        equal(self.appliance.command("tools", "--mcp", bob), {"tools": []})
        try:
            self.appliance.command("call", "prometheus", "query", '{"query": "up"}', "--mcp", bob)
        except Failed as error:
            equal(error.code, "unknown_tool")
        else:
            raise AssertionError("bob called a tool that he was not granted")


def is_up(result):
    """Whether a result of `query up` says that Prometheus is up."""
    holds(not result.get("isError"), result)
    value, _ = text_of(result)
    equal([series["value"] for series in value["series"]], ["1"])


def check_inspector(checks, appliance, npm):
    bridge = Bridge(appliance, "ada", "inspector")
    inspector = Inspector(npm, appliance, bridge)

    def opening():
        method, version, answer = bridge.opening()
        equal((method, version, answer["protocolVersion"]), ("initialize", "2025-11-25", "2025-11-25"))

    def schema():
        page = inspector.call(SCHEMA, module="prometheus", tool_name="query")["structuredContent"]
        [tool] = page["tools"]
        equal(tool["tool"]["inputSchema"], json.loads((MODULE / "schemas/query.json").read_text()))

    # Strict: a schema that some model's API refuses is an error.
    checks.run("Inspector lists the two tools", lambda: equal(inspector.list_tools("--strict"), [SCHEMA, CALL]))
    checks.run("Inspector opened with initialize, 2025-11-25", opening)
    checks.run("Inspector reads a tool's schema", schema)
    checks.run("Inspector calls query", lambda: is_up(
        inspector.call(CALL, **QUERY_UP)))


def check_fastmcp(checks, appliance):
    bridge = Bridge(appliance, "ada", "fastmcp")
    found = {}

    async def work(client):
        found["version"] = client.protocol_version
        found["tools"] = [tool.name for tool in await client.list_tools()]
        page = await client.call_tool(SCHEMA, {"module": "prometheus", "detail": "names"})
        found["names"] = sorted(tool["tool_name"] for tool in page.structured_content["tools"])
        found["up"] = (await client.call_tool_mcp(CALL, QUERY_UP)).model_dump(by_alias=True)

    def opening():
        method, version, answer = bridge.opening()
        equal((method, version, found["version"]), ("server/discover", "2026-07-28", "2026-07-28"))
        holds("2026-07-28" in answer["supportedVersions"], answer)
        equal(bridge.versions(), {"2026-07-28"})

    async def of_the_older_era(client):
        found["older"] = client.protocol_version
        is_up((await client.call_tool_mcp(CALL, QUERY_UP)).model_dump(by_alias=True))

    def older():
        older = Bridge(appliance, "ada", "fastmcp-legacy")
        asyncio.run(with_fastmcp(older, of_the_older_era, "legacy"))
        method, _, answer = older.opening()
        equal((method, answer["protocolVersion"], found["older"]), ("initialize", "2025-11-25", "2025-11-25"))

    checks.run("fastmcp connects and makes three requests", lambda: asyncio.run(with_fastmcp(bridge, work)))
    checks.run("fastmcp opened with server/discover, 2026-07-28", opening)
    checks.run("fastmcp lists the two tools", lambda: equal(found["tools"], [SCHEMA, CALL]))
    checks.run("fastmcp finds the eight tools of the module", lambda: equal(found["names"], TOOLS))
    checks.run("fastmcp calls query", lambda: is_up(found["up"]))
    checks.run("fastmcp told to be older opens with initialize and calls query", older)


def forms(user, password):
    """The password as it might stand somewhere: plain, as JSON, percent-encoded, hexadecimal, base64 at each offset."""
    whole = f"{user}:{password}".encode()
    shifted = [base64.b64encode(b"." * shift + password.encode())[4:-4] for shift in range(3)]
    return {password.encode(), json.dumps(password)[1:-1].encode(), urllib.parse.quote(password, safe="").encode(),
            password.encode().hex().encode(), base64.b64encode(whole), *shifted}


def files_with(folder, wanted):
    """The files below `folder` in which one of the byte strings stands."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if any(each in content for each in wanted):
                found.append(str(path.relative_to(folder)))
    return found


def check_secrecy(checks, appliance, service, password, wrong):
    def nowhere():
        either = forms(prometheus.USER, password) | forms(prometheus.USER, wrong)
        equal(files_with(appliance.folder, either), [])

    def search_works():
        # A search that finds nothing anywhere would prove nothing.
        holds("password" in files_with(service.folder, forms(prometheus.USER, password)), service.folder)
        holds({"transcript", "bridge-inspector.received", "bridge-fastmcp.received"}
              <= set(files_with(appliance.folder, {f"127.0.0.1:{service.port}".encode()})), appliance.folder)

    def arguments():
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                holds(password.encode() not in path.read_bytes(), path)
            except OSError:
                continue

    checks.run("neither password is in a file of the appliance: store, log, audit, transcripts", nowhere)
    checks.run("the same search finds what is there", search_works)
    checks.run("the password is in no process's arguments", arguments)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--npm", type=pathlib.Path, required=True, help="node_modules with the Inspector and Node")
    npm = parser.parse_args().npm
    die_properly()
    # Proxies are for the installation; everything from here on is loopback.
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    programs = build()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mcpist-peers-"))
    checks = Checks()
    try:
        checks.run("the lane comes to its end", lane, checks, folder, programs, npm)
    finally:
        undisturbed()
        if checks.failed:
            print(f"what was left is in {folder}")
        else:
            shutil.rmtree(folder)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed else 0


def lane(checks, folder, programs, npm):
    password = secrets.token_urlsafe(24) + "/+ä"
    wrong = "wrong-" + secrets.token_urlsafe(24)
    home = folder / "appliance"
    home.mkdir(mode=0o700)
    appliance = Appliance(home, programs)
    with prometheus.running(folder / "prometheus", password) as service, appliance.running():
        opened = appliance.set_up(MODULE, service, prometheus.USER, password)
        checks.run("shares opened by age and by mcpist unseal the store", lambda: holds("opened" in opened, opened))
        tools = Tools(appliance, service)
        for claim, check in [
            ("query gives the one series that is up", tools.query),
            ("query without a match gives no series", tools.query_none),
            ("query at a moment is evaluated there", tools.query_at),
            ("query_range gives each point", tools.query_range),
            ("series takes several selectors", tools.series),
            ("labels lists label names", tools.labels),
            ("label_values lists values", tools.label_values),
            ("label_values of __name__ lists metric names", tools.label_values_of_names),
            ("an answer that is too long is cut and says so", tools.many_series),
            ("targets shows the health", tools.targets),
            ("alerts shows the one that fires", tools.alerts),
            ("rules shows both rules", tools.rules),
            ("rules of one type", tools.rules_of_a_type),
            ("bad PromQL gives the service's text, marked", tools.bad_query),
            ("an unknown argument is refused", tools.bad_argument),
            ("a tool that is not there is unknown", tools.write_is_no_tool),
            ("bob, without a grant, sees and calls nothing", tools.bob_sees_nothing),
            ("a certificate of another authority is refused", tools.other_authority),
            ("a pinned key is accepted", tools.pinned_key),
            ("a path outside the binding's prefix is refused", tools.outside_the_prefix),
            ("the authority's certificate is accepted again", tools.bound_again),
        ]:
            checks.run(claim, check)
        checks.run("what gives the password back is redacted, answer and error", tools.redacted, password)
        checks.run("a wrong password is credential_suspect, and the right one serves again",
                   tools.wrong_password, password, wrong)
        check_inspector(checks, appliance, npm)
        check_fastmcp(checks, appliance)
        check_secrecy(checks, appliance, service, password, wrong)
        checks.run("the audit chain holds", lambda: holds(appliance.audit_verdict()["ok"], "the audit chain"))


if __name__ == "__main__":
    raise SystemExit(main())
