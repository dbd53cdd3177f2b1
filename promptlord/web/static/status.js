"use strict";

const EVERY = 2000; // ms between two looks
const PATIENCE = 5000; // ms for an answer
const SIZES = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];
const NEWS = { healthy: "Keys are ready again.", exhausted: "No key is ready.", unconfigured: "No key is configured." };

const root = document.documentElement;
const find = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const at = (report, path) => path.split(".").reduce((value, name) => value[name], report);

let timer;
let looking = false;

/** The same as spell() in status.py. */
function spell(seconds) {
  const left = Math.ceil(seconds);
  for (const [size, unit, smaller, name] of SIZES) {
    if (left >= size) {
      const rest = Math.floor((left % size) / smaller);
      return `${Math.floor(left / size)} ${unit}` + (rest ? ` ${rest} ${name}` : "");
    }
  }
  return `${left} s`;
}

/** Write only what changed: a screen reader's place and a selection stay. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Let an element count down from so many seconds. */
function countDown(element, seconds) {
  element.until = performance.now() + seconds * 1000;
}

function tick() {
  for (const element of all("[data-left]")) {
    const left = Math.max(0, element.until - performance.now()) / 1000;
    write(element, left ? spell(left) : "a moment");
  }
}

/** What the server puts on the page for a key's pauses. */
function showPauses(list, pauses) {
  const words = pauses.map((pause) => pause.model + pause.reason).join();
  if (list.words !== words) {
    list.words = words;
    list.replaceChildren(...pauses.map((pause) => {
      const item = document.createElement("li");
      const left = document.createElement("span");
      left.dataset.left = pause.seconds;
      if (pause.model) {
        item.append(Object.assign(document.createElement("b"), { textContent: pause.model }), " ");
      }
      item.append(`${pause.reason}, ${pause.then} `, left);
      return item;
    }));
  }
  all("[data-left]", list).forEach((left, nth) => countDown(left, pauses[nth].seconds));
}

function show(report) {
  const shape = [report.keys.length, ...report.models.map((model) => model.name)].join();
  if (shape !== find("main").dataset.shape) {
    location.reload(); // other keys or models since a restart: the server lays out the page
    return;
  }
  for (const element of all("[data-live]")) {
    const value = at(report, element.dataset.live);
    write(element, typeof value === "number" ? value.toLocaleString("en-US") : value ?? "–");
  }
  for (const meter of all("[data-bucket]")) {
    const bucket = at(report, meter.dataset.bucket);
    meter.max = bucket.limit ?? 1;
    meter.value = bucket.left ?? 0;
    write(meter, bucket.text);
  }
  all("tbody tr").forEach((row, nth) => {
    row.dataset.state = report.keys[nth].state;
    showPauses(find("ul", row), report.keys[nth].pauses);
  });
  if (report.keys.length) {
    find("#soonest").hidden = report.readyIn === 0;
    countDown(find("#soonest [data-left]"), report.readyIn);
    write(find("#uptime"), spell(report.uptime));
  }
  tick();
  turn(report.status);
  write(find("title"), `${report.headline} · PromptLord`);
}

/** Say it once when the state turns; what changes by the second is not read out. */
function turn(status) {
  if (root.dataset.status === status) return;
  root.dataset.status = status;
  const lost = status === "unreachable";
  find("#found").hidden = lost;
  find("#lost").hidden = !lost;
  write(find("#news"), NEWS[status] ?? "");
}

function lose() {
  if (root.dataset.status === "unreachable") return;
  write(find("#lost time"), new Date().toTimeString().slice(0, 8));
  write(find("title"), "Unreachable · PromptLord");
  turn("unreachable");
}

async function look() {
  if (looking) return;
  looking = true;
  clearTimeout(timer);
  try {
    const response = await fetch("/status", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!response.ok) throw new Error(response.statusText);
    show(await response.json());
  } catch {
    lose();
  }
  looking = false;
  if (!document.hidden) timer = setTimeout(look, EVERY);
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
setInterval(tick, 250);
all("[data-left]").forEach((element) => countDown(element, Number(element.dataset.left)));
look();
