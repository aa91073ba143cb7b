// Everything works without this. It shows times as local ones, follows what happens, and spares reloads.
"use strict";

const page = document.documentElement;

function localTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]:not(.ago)")) {
    const time = new Date(element.dateTime);
    if (Number.isNaN(time.getTime())) continue;
    const two = (number) => String(number).padStart(2, "0");
    const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
    element.title = element.dateTime;
    element.textContent = `${day} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  }
  const zone = document.getElementById("zone");
  if (zone) zone.textContent = `Times are local (${Intl.DateTimeFormat().resolvedOptions().timeZone})`;
}

// Fields that were filled in before are filled in again, on this machine only.
function remembered(root) {
  for (const input of root.querySelectorAll("input[data-remember]")) {
    const key = `steadfast-${input.dataset.remember}`;
    if (!input.value) input.value = localStorage.getItem(key) ?? "";
    input.addEventListener("change", () => localStorage.setItem(key, input.value));
  }
}

function prepare(root) {
  localTimes(root);
  remembered(root);
}

// Whether somebody is in the middle of something there.
function isBusy(element) {
  if (element.dataset.swap !== "keep") return false;
  if (element.contains(document.activeElement) && document.activeElement.matches("input, textarea, select")) return true;
  return [...element.querySelectorAll("input:not([type=hidden]), textarea")].some((input) => input.value !== input.defaultValue && !input.dataset.remember);
}

// What is open stays open.
function keepOpen(before, after) {
  const opened = [...before.querySelectorAll("details")].map((details) => details.open);
  after.querySelectorAll("details").forEach((details, place) => {
    if (opened[place]) details.open = true;
  });
}

async function load(url) {
  const answer = await fetch(url, { headers: { accept: "text/html" }, credentials: "same-origin" });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

function swap(current, fresh) {
  // A page without JavaScript would show it in UTC: both are compared as they came.
  const source = fresh.outerHTML;
  if (sources.get(current.id) === source) return;
  sources.set(current.id, source);
  const next = document.adoptNode(fresh);
  keepOpen(current, next);
  prepare(next);
  current.replaceWith(next);
}

const sources = new Map();
for (const element of document.querySelectorAll("[data-swap][id]")) sources.set(element.id, element.outerHTML);

let follower = null;
let wanted = false;
let loading = false;

async function refresh() {
  if (loading || document.hidden || document.querySelector(":popover-open")) {
    wanted = true;
    return;
  }
  loading = true;
  wanted = false;
  try {
    const fresh = await load(location.href);
    for (const element of document.querySelectorAll("[data-swap][id]")) {
      const next = fresh.getElementById(element.id);
      if (next && !isBusy(element)) swap(element, next);
    }
    if (!fresh.body.dataset.live) stop();
  } catch {
    // The server is away: the follower notices, and says so.
  }
  // Not more often than this, however much happens.
  setTimeout(() => {
    loading = false;
    if (wanted) refresh();
  }, 1500);
}

function say(text) {
  const following = document.getElementById("following");
  if (following) following.textContent = text;
}

function stop() {
  follower?.close();
  follower = null;
  say("");
}

function follow() {
  const url = document.body.dataset.live;
  if (!url || !window.EventSource) return;
  follower = new EventSource(url);
  let seen = document.body.dataset.seen;
  follower.onmessage = (event) => {
    if (event.data === seen) return;
    seen = event.data;
    refresh();
  };
  follower.onopen = () => say("Follows what happens");
  follower.onerror = () => say("Not connected: what is shown may be old");
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && wanted) refresh();
});
document.addEventListener("toggle", (event) => {
  if (event.newState === "closed" && wanted) refresh();
}, true);

// An event is looked at without leaving the place in the list.
async function look(link) {
  const fresh = await load(link.href);
  const [current, next] = [document.getElementById("detail"), fresh.getElementById("detail")];
  if (!current || !next) {
    location.assign(link.href);
    return;
  }
  const adopted = document.adoptNode(next);
  prepare(adopted);
  current.replaceWith(adopted);
  for (const element of document.querySelectorAll("[data-swap][id]")) {
    const other = fresh.getElementById(element.id);
    if (other) swap(element, other);
  }
  history.pushState(null, "", link.href.replace(/#.*$/, ""));
  adopted.focus({ preventScroll: true });
  const narrow = !window.matchMedia("(min-width: 900px)").matches;
  if (narrow) adopted.scrollIntoView({ block: "start" });
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-detail]");
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  look(link).catch(() => location.assign(link.href));
});
window.addEventListener("popstate", () => location.reload());

// A menu closes when somebody goes on elsewhere.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

page.classList.add("js");
prepare(document);
follow();
