// What pages need beside htmx: keys on the map, the kill dialog, live rows of events, a pause for all that moves.
"use strict";
(() => {
  const $ = (s, in_ = document) => in_.querySelector(s), all = (s, in_ = document) => [...in_.querySelectorAll(s)];
  let paused = false;
  // Said once things have been quiet for a moment, so that a screen reader is not flooded.
  let saying = 0, said = () => "";
  const say = text => { said = text; saying ||= setTimeout(() => { saying = 0; $("#say").textContent = said(); }, 2000); };

  // Parts that read themselves again wait while they are paused, out of sight, or somebody works in them.
  const busy = el => !!$("details[open], dialog[open]", el) || el.contains(document.activeElement) && document.activeElement.matches("input, select, button, summary");
  document.addEventListener("htmx:beforeRequest", e => {
    const el = e.detail.elt;
    if (el.matches("[data-poll]") && (paused || document.hidden || $("dialog[open]") || busy(el))) e.preventDefault();
  });
  const lost = text => { const p = $("#lost"); p.hidden = !text; if (p.textContent !== text) p.textContent = text; };
  document.addEventListener("htmx:sendError", () => lost("The node does not answer. What you see is from before; it is read again when the node is back."));
  document.addEventListener("htmx:afterRequest", e => { if (e.detail.xhr && e.detail.xhr.status) lost(""); });
  for (const b of all("[data-pause]")) {
    b.hidden = false;
    b.addEventListener("click", () => {
      paused = !paused;
      for (const x of all("[data-pause]")) { x.setAttribute("aria-pressed", paused); x.textContent = paused ? "Go on" : "Pause updates"; }
      document.dispatchEvent(new CustomEvent("pause", { detail: paused }));
    });
  }

  // On a phone the menu scrolls: the page that is open is in sight.
  const here = $("nav a[aria-current]"), menu = $("nav");
  if (here && menu.scrollWidth > menu.clientWidth) menu.scrollLeft = here.offsetLeft - menu.offsetLeft - (menu.clientWidth - here.offsetWidth) / 2;

  // The map: one tab stop, arrow keys move to the neighbour as it is seen.
  const tiles = grid => all("a[aria-label]", grid);
  const ready = () => {
    for (const grid of all("[data-grid]:not([data-ready])")) {
      grid.dataset.ready = "";
      tiles(grid).forEach((t, i) => t.tabIndex = i ? -1 : 0);
    }
  };
  ready();
  document.addEventListener("htmx:afterSettle", ready);
  const caption = t => { const c = $("[data-caption]"); if (c) c.textContent = t ? t.getAttribute("aria-label") : "\u00a0"; };
  document.addEventListener("mouseover", e => { const t = e.target.closest?.("[data-grid] a[aria-label]"); if (t) caption(t); });
  document.addEventListener("focusin", e => {
    const t = e.target.closest?.("[data-grid] a[aria-label]");
    if (!t) return;
    for (const x of tiles(t.closest("[data-grid]"))) x.tabIndex = x === t ? 0 : -1;
    caption(t);
  });
  document.addEventListener("keydown", e => {
    const t = e.target.closest?.("[data-grid] a[aria-label]");
    if (!t || e.altKey || e.ctrlKey || e.metaKey) return;
    const list = tiles(t.closest("[data-grid]")), i = list.indexOf(t);
    const mid = x => { const b = x.getBoundingClientRect(); return [b.left + b.width / 2, b.top + b.height / 2]; };
    const next = down => {
      const [x, y] = mid(t);
      let best = null, least = Infinity;
      for (const o of list) {
        const [ox, oy] = mid(o), dy = down ? oy - y : y - oy;
        const far = dy * 4 + Math.abs(ox - x);
        if (dy > 4 && far < least) { least = far; best = o; }
      }
      return best;
    };
    const to = { ArrowRight: list[i + 1], ArrowLeft: list[i - 1], Home: list[0], End: list[list.length - 1], ArrowDown: null, ArrowUp: null }[e.key];
    if (to === undefined && !["ArrowRight", "ArrowLeft"].includes(e.key)) return;
    e.preventDefault();
    (to || (e.key === "ArrowDown" ? next(true) : e.key === "ArrowUp" ? next(false) : null))?.focus();
  });

  // The kill dialog: the browser keeps the focus in it and gives it back.
  document.addEventListener("click", e => {
    const k = e.target.closest?.("[data-kill]"), dialog = $("#kill");
    if (k && dialog) {
      e.preventDefault();
      dialog.querySelector("[name=id]").value = k.dataset.kill;
      $("[data-about]", dialog).textContent = k.dataset.about;
      dialog.showModal();
      $("[name=reason]", dialog).focus();
    }
    if (e.target.closest?.("[data-close]")) e.target.closest("dialog").close();
  });

  // A form that takes long says so and is not sent twice.
  document.addEventListener("submit", e => {
    if (e.target.dataset.busy === undefined) return;
    const b = e.submitter || $("button", e.target);
    setTimeout(() => { b.disabled = true; b.textContent = e.target.dataset.busy; });
    say(() => e.target.dataset.busy);
  });

  // Live rows of events. The server escapes them as it does the page's own.
  const box = $("[data-stream]");
  if (box) {
    const body = $("tbody", box), state = $("[data-live-state]"), keep = 300;
    let fresh = 0, waiting = [];
    const show = () => {
      for (const html of waiting.splice(0)) {
        const t = document.createElement("template");
        t.innerHTML = html;
        const row = t.content.firstElementChild;
        if (!row) continue;
        row.classList.add("new");
        body.prepend(row);
        fresh++;
      }
      while (body.rows.length > keep) body.lastElementChild.remove();
      if (fresh) { $("[data-empty]", box)?.remove(); say(() => { const n = fresh; fresh = 0; return n === 1 ? "One new event." : n + " new events."; }); }
    };
    const source = new EventSource(box.dataset.stream);
    source.addEventListener("open", () => { state.textContent = "New events appear here as they happen."; lost(""); });
    source.addEventListener("row", e => {
      waiting.push(e.data);
      if (waiting.length > keep) waiting.shift();
      if (!paused) show(); else state.textContent = waiting.length + " new events wait.";
    });
    source.addEventListener("lost", e => { state.textContent = e.data + " events came too fast to be shown; they are stored."; });
    source.addEventListener("over", () => { source.close(); location.assign("/signin"); });
    source.addEventListener("error", () => { state.textContent = "The live stream is broken; trying again…"; });
    document.addEventListener("pause", e => { if (!e.detail) { state.textContent = "New events appear here as they happen."; show(); } });
  }
})();
