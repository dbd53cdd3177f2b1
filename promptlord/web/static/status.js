"use strict";

// The server says everything; this only puts in place what has changed since, so that focus, a selection and a screen
// reader's place stay.
const EVERY = 2000; // ms between two looks
const PATIENCE = 5000; // ms for an answer

const root = document.documentElement;
const find = (selector, within = document) => within.querySelector(selector);

let timer;
let looking = false;

/** Give every instant by the reader's own clock. */
function localize(within) {
  for (const time of within.querySelectorAll("time")) {
    time.textContent = new Date(time.dateTime).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  }
}

/** Make a node like another one. */
function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeName !== fresh.nodeName || old.childNodes.length !== fresh.childNodes.length) {
    old.replaceWith(document.importNode(fresh, true));
  } else if (old.nodeType !== Node.ELEMENT_NODE) {
    old.data = fresh.data;
  } else {
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const pairs = [...old.childNodes].map((child, nth) => [child, fresh.childNodes[nth]]);
    for (const [child, like] of pairs) morph(child, like);
  }
}

/** Say it once when the state turns; what changes by the second is not read out. */
function turn(status, headline) {
  if (root.dataset.status === status) return;
  root.dataset.status = status;
  const lost = status === "unreachable";
  find("main").hidden = lost;
  find("#lost").hidden = !lost;
  find("#news").textContent = lost ? "" : headline;
}

function show(fresh) {
  localize(fresh);
  morph(find("main"), find("main", fresh));
  turn(fresh.documentElement.dataset.status, find("h1", find("main", fresh)).textContent);
  if (document.title !== fresh.title) document.title = fresh.title;
}

function lose() {
  if (root.dataset.status === "unreachable") return;
  find("#lost span").textContent = new Date().toTimeString().slice(0, 8);
  document.title = "Unreachable · PromptLord";
  turn("unreachable");
}

async function look() {
  if (looking) return;
  looking = true;
  clearTimeout(timer);
  try {
    const response = await fetch(`${location.origin}/`, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    if (!response.ok || !fresh.documentElement.dataset.status) throw new Error(response.statusText);
    show(fresh);
  } catch {
    lose();
  }
  looking = false;
  if (!document.hidden) timer = setTimeout(look, EVERY);
}

document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
localize(document);
timer = setTimeout(look, EVERY);
