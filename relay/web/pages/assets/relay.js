// Everything works without this file. It keeps a page fresh and gives it keyboard shortcuts.
"use strict";

(() => {
  const root = document.documentElement;
  const base = root.dataset.base || "";

  // ---- Live: a line of the stream says that something may have changed; then this page is read again and its parts exchanged.
  const sign = document.querySelector("[data-live-sign]");
  const parts = () => document.querySelectorAll("main [data-live]");
  let reading = false;
  let again = false;
  let readAt = new Date();  // what is shown is of then

  const say = (state, words) => {
    if (!sign) return;
    sign.hidden = false;
    sign.dataset.state = state;
    sign.textContent = words;
  };

  const lost = () => say("off", `Not connected: as of ${readAt.toISOString().slice(11, 19)}Z`);

  // A person who reads or types in a part keeps it as it is: it is exchanged when they have left it.
  const inUse = (part) => part.contains(document.activeElement) || part.querySelector("details[open]") !== null;

  const read = async () => {
    try {
      const answer = await fetch(location.href, { headers: { "X-Refresh": "1" }, redirect: "error" });
      if (!answer.ok) return lost();
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of parts()) {
        const other = fresh.getElementById(part.id);
        if (other && !inUse(part) && other.innerHTML !== part.innerHTML) part.replaceChildren(...other.childNodes);
      }
      readAt = new Date();
      say("on", "Live");
    } catch {
      lost();
    }
  };

  // What changes while it is read may not be in what comes: then it is read once more.
  const refresh = async () => {
    again = true;
    if (reading || document.hidden) return;
    reading = true;
    while (again) {
      again = false;
      await read();
    }
    reading = false;
  };

  if (root.dataset.live === "on" && parts().length && "EventSource" in window) {
    const stream = new EventSource(`${base}/live`);
    stream.addEventListener("open", () => {
      if (sign?.dataset.state !== "off") say("on", "Live");
      refresh();  // what changed before is not told
    });
    stream.addEventListener("changed", refresh);
    stream.addEventListener("error", lost);
    document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
    window.addEventListener("pagehide", () => stream.close());
  }

  // ---- Keys: off where the person switched them off, and while a field has the focus.
  const help = document.querySelector("dialog[data-keys]");
  if (!help || root.dataset.keys !== "on") return;
  let before = "";
  let timer = 0;

  const rows = () => [...document.querySelectorAll("tbody tr a[data-row]")];
  const move = (by) => {
    const all = rows();
    if (!all.length) return;
    const at = all.indexOf(document.activeElement);
    all[Math.min(all.length - 1, Math.max(0, at < 0 ? (by > 0 ? 0 : all.length - 1) : at + by))].focus();
  };
  const alone = {
    "?": () => help.showModal(),
    "/": () => document.querySelector("[data-search]")?.focus(),
    j: () => move(1),
    k: () => move(-1),
  };

  document.addEventListener("keydown", (pressed) => {
    if (pressed.ctrlKey || pressed.metaKey || pressed.altKey || help.open) return;
    if (pressed.target.closest?.("input, select, textarea, [contenteditable]")) return;
    const goes = before === "g" && document.querySelector(`a[data-key="${CSS.escape(pressed.key)}"]`);
    before = "";
    clearTimeout(timer);
    if (goes) {
      pressed.preventDefault();
      goes.click();
    } else if (pressed.key === "g") {
      before = "g";
      timer = setTimeout(() => { before = ""; }, 1500);
    } else if (alone[pressed.key]) {
      pressed.preventDefault();
      alone[pressed.key]();
    }
  });
})();
