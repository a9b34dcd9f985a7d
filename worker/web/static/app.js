// The page works without this. With it: live numbers, the choice of a theme, local times,
// questions before what cannot be undone.
"use strict";

const dot = document.querySelector(".live");

function localTimes(within) {
  for (const time of within.querySelectorAll("time[datetime]")) {
    time.title = new Date(time.dateTime).toLocaleString();
  }
}

// Parts marked data-live are replaced by what the server has now; what the user is in is left.
async function refresh() {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok || answer.redirected) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (!other || part.contains(document.activeElement)) continue;
    if (part.innerHTML !== other.innerHTML) {
      part.replaceChildren(...other.childNodes);
      localTimes(part);
    }
  }
}

let due = null;
let last = 0;
function soon() {
  if (due) return;
  due = setTimeout(async () => {
    due = null;
    last = Date.now();
    if (!document.hidden) await refresh().catch(() => {});
  }, Math.max(100, 2000 - (Date.now() - last)));
}

if (document.querySelector("[data-live]")) {
  const events = new EventSource("/live");
  events.addEventListener("change", soon);
  events.onopen = () => mark(true);
  events.onerror = () => mark(false);
  document.addEventListener("visibilitychange", () => document.hidden || soon());
  if (document.querySelector("[data-every]")) setInterval(soon, 2000);
}

function mark(on) {
  if (!dot) return;
  dot.classList.toggle("on", on);
  dot.classList.toggle("off", !on);
  dot.title = on ? "Live: what changes is shown at once" : "Not connected";
}

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.ask || event.target.dataset.ask;
  if (question && !confirm(question)) event.preventDefault();
});

document.querySelector("[data-theme-button]")?.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
});

// On a narrow screen the page's own name may be out of sight.
const here = document.querySelector(".bar nav [aria-current]");
if (here) here.parentElement.scrollLeft = here.offsetLeft - here.parentElement.offsetLeft - 80;

localTimes(document);
