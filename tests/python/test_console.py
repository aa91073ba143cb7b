"""The console in a real browser, as a newcomer uses it: at a desk and on a phone.

`CHROMIUM` names the browser (default: chromium on the PATH), `AXE` the file axe.min.js of the npm package
axe-core. Without the first all is skipped, without the second what looks for barriers. `STEADFAST_SHOTS` is a
directory for pictures of what was seen.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.error import HTTPError

import pytest
import pytest_asyncio
from console_agents import HOSTILE_ID, POLICIES, start, worker
from server import Server, binary
from test_bundle import rewritten

playwright_api = pytest.importorskip("playwright.async_api")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
if Path(binary()).name.startswith("temporal") or not CHROMIUM:
    pytest.skip("needs Steadfast and a browser", allow_module_level=True)

from playwright.async_api import (  # noqa: E402
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    async_playwright,
    expect,
)

# Machines that run tests are slow at times.
expect.set_options(timeout=20_000)

SIZES = {"desk": (1440, 900), "phone": (390, 844)}
FLAGS = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """A server with sessions of all kinds."""
    folder = tmp_path_factory.mktemp("console")
    (folder / "policies").mkdir()
    (folder / "policies" / "tools.cedar").write_text(POLICIES)
    server = Server(folder / "steadfast.db", log=folder / "log", flags=["--policy", str(folder / "policies")])
    server.start()
    try:
        await server.ready()
        client = await start(server)
        async with worker(client):
            await has_come_so_far(server)
            yield server
        server.check_evidence()
    finally:
        server.kill()


async def has_come_so_far(server: Server) -> None:
    """Until everything happened that happens by itself."""
    import json

    deadline = time.monotonic() + 30
    url = f"{server.http}/api/v1/namespaces/default/approvals"
    while not json.loads(await asyncio.to_thread(read, url))["approvals"]:
        assert time.monotonic() < deadline, "nothing waits for people"
        await asyncio.sleep(0.2)


def read(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        return answer.read().decode()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *root])
        yield browser
        await browser.close()


Open = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(params=list(SIZES))
async def open_page(browser: Browser, server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Open]:
    """Opens pages; at the end nothing may have gone wrong in them, and nobody else have been asked."""
    width, height = SIZES[request.param]
    wrong: list[str] = []
    contexts: list[BrowserContext] = []

    def told(message: ConsoleMessage) -> None:
        # Chromium reports an answer that is a refusal, even if it is what the test is about.
        is_expected = any(f"status of {status} " in message.text for status in open.refusals)
        if message.type in ("error", "warning") and not is_expected:
            wrong.append(message.text)

    async def open(path: str = "/", **options) -> Page:
        options = {"viewport": {"width": width, "height": height}, "is_mobile": width < 500, **options}
        context = await browser.new_context(base_url=server.http, **options)
        contexts.append(context)
        page = await context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", told)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith(server.http) or wrong.append(f"asked {asked.url}"))
        await page.goto(path)
        return page

    open.refusals = set()
    yield open
    for context in contexts:
        for page in context.pages:
            hacked = await page.evaluate("window.hacked")
            assert hacked is None, f"{page.url}: what others wrote was run"
        await context.close()
    assert wrong == []


async def shot(page: Page, name: str) -> None:
    """A picture, for whoever wants to look."""
    if folder := os.environ.get("STEADFAST_SHOTS"):
        width = page.viewport_size["width"]
        await page.screenshot(path=f"{folder}/{name}-{width}.png", full_page=width < 500)


async def fits(page: Page) -> None:
    """Nothing is wider than the window."""
    wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{page.url}: {wide} pixels are outside"


AXE = os.environ.get("AXE")


async def is_accessible(page: Page) -> None:
    if not AXE:
        return
    script = Path(AXE).read_text()
    found = await page.evaluate(f"(async () => {{ {script}; return (await axe.run()).violations }})()")
    told = [f"{one['id']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0]['failureSummary'][:300]}" for one in found]
    assert told == [], f"{page.url}: " + "\n".join(told)


async def look(page: Page, name: str) -> None:
    await shot(page, name)
    await fits(page)
    await is_accessible(page)


async def session(open_page: Open, id: str) -> Page:
    page = await open_page("/")
    await page.get_by_label("Id begins with").fill(id[:60])
    await page.get_by_role("button", name="Filter").click()
    # Its children's ids may begin with its own.
    await page.locator("#sessions").get_by_role("link", name=id, exact=True).click()
    await expect(page.locator("#events")).to_be_visible()
    return page


async def test_what_is_this_agent_doing(open_page: Open) -> None:
    page = await open_page("/")
    await expect(page).to_have_url(re.compile("/ui/namespaces/default/sessions$"))
    await expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    await look(page, "sessions")
    await page.get_by_role("link", name=re.compile("^Running")).click()
    await expect(page.locator("#sessions")).not_to_contain_text("Completed")
    await page.get_by_role("link", name="refund-4711").click()
    now = page.locator("#pending")
    await expect(now).to_contain_text("refund waits for approval by 2 people, with one of each of finance, risk")
    await expect(page.locator("#facts")).to_contain_text("maria@support")
    await look(page, "session")
    page = await session(open_page, "without-a-worker")
    await expect(page.locator("#pending")).to_contain_text("No worker polls this queue.")
    page = await session(open_page, "plan-for-tomorrow")
    await expect(page.locator("#pending")).to_contain_text(re.compile("Sleeps; wakes in [23] d"))
    await look(page, "sleeping")


async def test_why_did_it_do_that(open_page: Open) -> None:
    page = await session(open_page, "refund-4711")
    events = page.locator("#events")
    await expect(events).to_contain_text("Attempt 1 of check_fraud failed: ServiceUnavailable: the scoring service answered 503")
    await expect(events).to_contain_text("Attempt 3 of check_fraud handed to worker")
    await expect(events).to_contain_text("refund waits for approval")
    await expect(events).not_to_contain_text("A worker of agents is to say what is next")
    # What a call was made with, and why it was permitted.
    row = events.locator("li", has_text="Tool call look_up_order")
    await row.get_by_role("link").click()
    detail = page.locator("#detail")
    await expect(detail).to_contain_text("Permitted tools")
    await expect(detail).to_contain_text('"4711"')
    await expect(detail).to_contain_text("look_up_order")
    await look(page, "event")
    await page.get_by_role("link", name="steps in between").click()
    await expect(events).to_contain_text("A worker of agents is to say what is next")
    lane = page.locator(".lane", has_text="check_fraud").locator("svg")
    words = await lane.get_attribute("aria-label")
    assert words and words.count("failed") == 2 and "returned" in words, words


async def test_a_refused_call_says_by_which_policy(open_page: Open) -> None:
    page = await session(open_page, "tidy-customer-9")
    await expect(page.locator("#events")).to_contain_text("delete_customer is refused: by no-deletions")
    await expect(page.locator("#events")).to_contain_text("Session failed: PolicyDenied")
    await look(page, "refused")
    await page.get_by_role("link", name="Policies", exact=True).click()
    await expect(page.locator("main")).to_contain_text("Nobody's agent deletes customers.")
    await look(page, "policies")


async def test_the_history_as_json_is_what_the_temporal_command_reads(open_page: Open, server: Server) -> None:
    from temporalio.client import WorkflowHistory

    page = await session(open_page, "refund-4712")
    href = await page.get_by_role("link", name="history as JSON").get_attribute("href")
    json = await asyncio.to_thread(read, f"{server.http}{href}")
    client = await server.client()
    expected = await client.get_workflow_handle("refund-4712").fetch_history()
    assert WorkflowHistory.from_json("refund-4712", json).events == expected.events


async def test_without_javascript_everything_can_be_read(open_page: Open) -> None:
    page = await open_page("/", java_script_enabled=False)
    await page.get_by_role("link", name="refund-4711").click()
    await expect(page.locator("#events")).to_contain_text("refund waits for approval")
    await page.locator("#events li", has_text="Tool call look_up_order").get_by_role("link").click()
    await expect(page.locator("#detail")).to_contain_text("Permitted tools")
    await page.locator("body").get_by_role("link", name="Approvals").first.click()
    await expect(page.locator(".call")).to_contain_text("4200")


async def test_what_others_wrote_is_shown_and_not_run(open_page: Open) -> None:
    page = await open_page("/")
    row = page.locator("#sessions tr", has_text="x</title><script>")
    await expect(row).to_contain_text("U+202E")
    await expect(row).to_contain_text("javascript:")
    await row.get_by_role("link").click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("<script>window.hacked=1</script>")
    await expect(page.locator("#events")).to_contain_text("misbehave failed")
    await look(page, "hostile")
    for link in await page.locator("a[href]").all():
        href = await link.get_attribute("href") or ""
        assert href.startswith(("/", "#", "session?")), href
    await page.locator("#events li", has_text="misbehave failed").get_by_role("link").click()
    await expect(page.locator("#detail")).to_contain_text("{{7*7}}")
    page = await session(open_page, "huge")
    assert len(await page.content()) < 400_000
    await fits(page)


async def test_filters_are_in_the_url_and_say_what_is_wrong_with_them(open_page: Open) -> None:
    page = await open_page("/")
    await page.get_by_label("And this list filter").fill("WorkflowType = 'RefundAgent' AND ExecutionStatus = 'Completed'")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.locator("#sessions tbody tr")).to_have_count(1)
    await expect(page).to_have_url(re.compile("query=WorkflowType"))
    await page.get_by_label("And this list filter").fill("Nonsense = = 1")
    await page.get_by_role("button", name="Filter").click()
    await expect(page.get_by_role("alert")).to_contain_text("invalid query")
    await look(page, "filter")
    await page.get_by_role("link", name="Clear").click()
    await expect(page.locator("#sessions tbody tr").nth(5)).to_be_visible()


async def test_what_is_not_there_is_said(open_page: Open, server: Server) -> None:
    for path in ["/ui/namespaces/nowhere/sessions", "/ui/namespaces/default/session?id=nothing"]:
        with pytest.raises(HTTPError) as refused:
            await asyncio.to_thread(read, server.http + path)
        assert refused.value.code == 404
        assert "Not here" in refused.value.read().decode()


async def test_every_part_of_the_console(open_page: Open) -> None:
    page = await open_page("/")
    for name in ["Approvals", "Evidence", "Policies", "Workers", "Namespaces"]:
        await page.get_by_role("navigation", name="Parts of the console").get_by_role("link", name=name).click()
        await expect(page.get_by_role("heading", level=1)).to_have_text(name)
        await look(page, name.lower())
    await expect(page.locator("tbody")).to_contain_text("default")


async def test_the_keyboard_reaches_everything_and_is_seen(open_page: Open) -> None:
    page = await open_page("/")
    await page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    await expect(skip).to_be_focused()
    for _ in range(12):
        await page.keyboard.press("Tab")
        style = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid", await page.evaluate("document.activeElement.outerHTML")


async def test_the_dark_has_the_same_contrast(open_page: Open) -> None:
    page = await open_page("/", color_scheme="dark")
    await look(page, "dark-sessions")
    await page.get_by_role("link", name="refund-4711").click()
    await expect(page.locator("#events")).to_contain_text("refund waits")
    await look(page, "dark-session")


async def test_may_it_do_this(open_page: Open, server: Server) -> None:
    """Two people approve a call, and it goes on; another one is denied."""
    client = await server.client(identity="maria@support")
    open_page.refusals.add(403)
    for name, amount in [("yes", 9100), ("no", 9200)]:
        id = f"refund-{name}-{time.time_ns()}"
        request = {"order": name, "amount": amount, "reason": "<b>broken</b>"}
        handle = await client.start_workflow("RefundAgent", request, id=id, task_queue="agents")
        page = await open_page("/ui/namespaces/default/approvals")
        call = page.locator(".call", has_text=id)
        # It appears by itself.
        await expect(call).to_contain_text(str(amount))
        await expect(call).to_contain_text("on behalf of maria@support")
        await expect(call).to_contain_text("<b>broken</b>")

        async def vote(who: str, groups: str, button: str) -> None:
            call = page.locator(".call", has_text=id)
            await call.get_by_label("Your name").fill(who)
            await call.get_by_label("Your groups").fill(groups)
            await call.get_by_label("Comment").fill(f"{who} looked at it")
            await call.get_by_role("button", name=button).click()

        if name == "yes":
            await vote("maria@support", "finance", "Approve this call")
            await expect(page.get_by_role("heading", level=1)).to_have_text("Not permitted")
            await page.go_back()
            await vote("bob", "finance", "Approve this call")
            await expect(page.get_by_role("status")).to_contain_text("More people have to approve")
            await expect(call).to_contain_text("Approved bob of finance: “bob looked at it”")
            await vote("carol", "risk", "Approve this call")
            await expect(page.get_by_role("status")).to_contain_text("the tool call goes on")
            assert await handle.result() == "refunded 9100"
        else:
            await vote("bob", "finance", "Deny it")
            await expect(page.get_by_role("status")).to_contain_text("Denied")
        page = await session(open_page, id)
        await expect(page.locator("#events")).to_contain_text("bob approved" if name == "yes" else "bob denied")


async def question(page: Page, button: str, heading: str):
    await page.get_by_role("button", name=button, exact=True).click()
    dialog = page.get_by_role("dialog", name=heading)
    await expect(dialog).to_be_visible()
    await look(page, f"question-{button.strip('…').lower()}")
    return dialog


async def test_stop_it(open_page: Open, server: Server) -> None:
    client = await server.client(identity="maria@support")
    id = f"sleeps-{time.time_ns()}"
    handle = await client.start_workflow("Sleeper", id=id, task_queue="agents")
    page = await session(open_page, id)
    await expect(page.locator("#pending")).to_contain_text("Sleeps")
    dialog = await question(page, "Cancel…", "Ask the agent to stop")
    await dialog.get_by_label("Reason").fill("not needed any more")
    await dialog.get_by_role("button", name="Request cancellation").click()
    await expect(page.get_by_role("status")).to_contain_text("Cancellation is requested")
    # What happens then is seen without loading the page again.
    await expect(page.locator("#state")).to_contain_text("Cancelled")
    await expect(page.locator("#events")).to_contain_text("Cancellation requested: not needed any more")
    await expect(page.get_by_role("button", name="Terminate…")).to_have_count(0)
    assert (await handle.describe()).status.name == "CANCELED"

    id = f"nobody-{time.time_ns()}"
    handle = await client.start_workflow("Nobody", id=id, task_queue="nobody-polls-this")
    page = await session(open_page, id)
    dialog = await question(page, "Terminate…", "Terminate the session")
    await dialog.get_by_role("button", name="Not now").click()
    await expect(dialog).to_be_hidden()
    dialog = await question(page, "Terminate…", "Terminate the session")
    await dialog.get_by_label("Reason").fill("<i>wrong queue</i>")
    await dialog.get_by_role("button", name="Terminate", exact=True).click()
    await expect(page.locator("#events")).to_contain_text("Session terminated: <i>wrong queue</i>")
    assert (await handle.describe()).status.name == "TERMINATED"


async def test_pause_resume_and_revoke(open_page: Open, server: Server) -> None:
    client = await server.client(identity="maria@support")
    id = f"research-{time.time_ns()}"
    handle = await client.start_workflow("Research", "wind", id=id, task_queue="agents")
    page = await session(open_page, id)
    dialog = await question(page, "Pause…", "Pause the session")
    await dialog.get_by_label("Reason").fill("<b>looks odd</b>")
    await dialog.get_by_role("button", name="Pause", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("Nothing of it is handed to workers")
    await expect(page.locator("#state")).to_contain_text("Paused")
    await expect(page.locator("#pending")).to_contain_text("by console")
    await expect(page.locator("#pending")).to_contain_text("<b>looks odd</b>")
    await expect(page.get_by_role("button", name="Pause…")).to_have_count(0)
    # What comes meanwhile is kept, and seen by nobody.
    await handle.signal("go_on", {"who": "maria"})
    await expect(page.locator("#events")).to_contain_text("Signal go_on")
    await expect(page.locator("#state")).to_contain_text("Paused")
    dialog = await question(page, "Resume…", "Resume the session")
    await dialog.get_by_role("button", name="Resume", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("It goes on where it was")
    await expect(page.locator("#state")).to_contain_text("Completed")
    events = page.locator("#events")
    await expect(events).to_contain_text("Session paused: <b>looks odd</b>")
    await expect(events).to_contain_text("Session resumed")
    assert len((await handle.result())["found"]) == 2

    id = f"sleeps-{time.time_ns()}"
    handle = await client.start_workflow("Sleeper", id=id, task_queue="agents")
    page = await session(open_page, id)
    dialog = await question(page, "Revoke…", "Revoke the session")
    await dialog.get_by_label("Reason").fill("leaver")
    await dialog.get_by_role("button", name="Revoke", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("The session is revoked")
    await expect(page.locator("#events")).to_contain_text("revoked by console: leaver")
    assert (await handle.describe()).status.name == "TERMINATED"


async def test_signal_and_reset(open_page: Open, server: Server) -> None:
    client = await server.client(identity="maria@support")
    open_page.refusals.add(400)
    id = f"research-{time.time_ns()}"
    handle = await client.start_workflow("Research", "wind", id=id, task_queue="agents")
    page = await session(open_page, id)
    address = page.url
    dialog = await question(page, "Signal…", "Send a signal")
    await dialog.get_by_label("Name").fill("go_on")
    await dialog.get_by_label("Argument, as JSON").fill("{no json")
    await dialog.get_by_role("button", name="Send the signal").click()
    await expect(page.locator("main")).to_contain_text("the argument is not JSON")
    await page.goto(address)
    dialog = await question(page, "Signal…", "Send a signal")
    await dialog.get_by_label("Name").fill("go_on")
    await dialog.get_by_label("Argument, as JSON").fill('{"who": "maria"}')
    await dialog.get_by_role("button", name="Send the signal").click()
    await expect(page.get_by_role("status")).to_contain_text("The signal is recorded")
    await expect(page.locator("#state")).to_contain_text("Completed")
    await expect(page.locator("#events")).to_contain_text("Signal go_on")
    await expect(page.locator(".lane", has_text="deeper")).to_be_visible()
    assert len((await handle.result())["found"]) == 2

    id = f"sleeps-{time.time_ns()}"
    handle = await client.start_workflow("Sleeper", id=id, task_queue="agents")
    page = await session(open_page, id)
    await expect(page.locator("#pending")).to_contain_text("Sleeps")
    await page.reload()
    dialog = await question(page, "Reset…", "Begin again from a point")
    await dialog.get_by_label("Up to").select_option("4")
    await dialog.get_by_role("button", name="Reset", exact=True).click()
    await expect(page.get_by_role("status")).to_contain_text("A new run began")
    run = (await handle.describe()).run_id
    await expect(page.locator("#facts")).to_contain_text(run)


async def test_evidence_is_taken_away_and_verified(open_page: Open, tmp_path: Path) -> None:
    page = await open_page("/ui/namespaces/default/evidence")
    await page.get_by_label("Workflow id").fill("refund-4712")
    async with page.expect_download() as started:
        await page.get_by_role("button", name="Download").click()
    bundle = tmp_path / "evidence.zip"
    await (await started.value).save_as(bundle)
    await page.get_by_label("Bundle").set_input_files(bundle)
    await page.get_by_role("button", name="Verify").click()
    verdict = page.locator(".verdict")
    await expect(verdict).to_contain_text("Verified")
    await expect(verdict).to_contain_text("Session refund-4712 of namespace default: 1 run")
    await look(page, "verified")
    other = rewritten(
        bundle,
        tmp_path / "changed.zip",
        lambda name, content: content.replace(b"refund", b"Refund", 1) if name == "entries.jsonl" else content,
    )
    await page.get_by_label("Bundle").set_input_files(other)
    await page.get_by_role("button", name="Verify").click()
    await expect(verdict).to_contain_text("Not to be believed")
    await look(page, "not-verified")


async def test_the_list_follows_what_happens(open_page: Open, server: Server) -> None:
    page = await open_page("/")
    client = await server.client()
    id = f"new-{time.time_ns()}"
    handle = await client.start_workflow("Nobody", id=id, task_queue="nobody-polls-this")
    await expect(page.locator("#sessions")).to_contain_text(id)
    await handle.terminate()
    await expect(page.locator("#sessions tr", has_text=id)).to_contain_text("Terminated")


def post(url: str, body: bytes, **headers: str) -> tuple[int, str]:
    asked = urllib.request.Request(url, body, {"content-type": "application/x-www-form-urlencoded", **headers})
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()


async def test_other_sites_cannot_use_the_console(server: Server) -> None:
    page = await asyncio.to_thread(read, f"{server.http}/ui/namespaces/default/session?id=plan-for-tomorrow")
    token = re.search('name="token" value="([0-9a-f]{64})"', page)
    assert token
    url = f"{server.http}/ui/namespaces/default/session/signal?id=plan-for-tomorrow"
    body = f"name=x&token={token[1]}".encode()
    for sent, headers in [
        (body, {"origin": "https://evil.example"}),
        (body, {"origin": "null"}),
        (body, {"sec-fetch-site": "cross-site"}),
        (b"name=x", {"origin": server.http}),
        (b"name=x&token=" + b"0" * 64, {}),
        (body, {"host": "evil.example"}),
    ]:
        code, _ = await asyncio.to_thread(post, url, sent, **headers)
        assert code == 403, headers
    code, _ = await asyncio.to_thread(post, url, body, origin=server.http)
    assert code == 200
    # A name that another site can make its own is none of ours, for what answers to nobody in particular.
    for path in ["/", "/ui", "/api/v1/status", "/ui/namespaces/default/sessions"]:
        with pytest.raises(HTTPError) as refused:
            await asyncio.to_thread(read, server.http + path, host="rebound.example:8233")
        assert refused.value.code == 403
    assert await asyncio.to_thread(read, f"{server.http}/healthz", host="rebound.example") == "ok\n"


async def test_browsers_are_told_what_they_may_do(server: Server) -> None:
    def headers(path: str):
        with urllib.request.urlopen(server.http + path, timeout=10) as answer:
            return answer.headers, answer.read().decode()

    told, page = await asyncio.to_thread(headers, "/ui/namespaces/default/sessions")
    policy = told["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert told["x-content-type-options"] == "nosniff" and told["cache-control"] == "no-store"
    assert "<style" not in page and " style=" not in page and "<script>" not in page and " onclick" not in page
    [style] = re.findall('href="(/ui/assets/[^"]*css)"', page)
    told, _ = await asyncio.to_thread(headers, style)
    assert "immutable" in told["cache-control"]
