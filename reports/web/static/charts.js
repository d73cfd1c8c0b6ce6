// The charts of the live page: one series of samples, drawn by uPlot in the colours of the style sheet.
"use strict";
(() => {
  const box = document.querySelector("[data-charts]");
  if (!box || !window.uPlot) return;
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const size = v => { const u = ["B", "KiB", "MiB", "GiB"]; let i = 0; while (v >= 1024 && i < 3) { v /= 1024; i++; } return (v >= 10 || !i ? Math.round(v) : v.toFixed(1)) + " " + u[i]; };
  const number = v => v >= 1e6 ? +(v / 1e6).toFixed(1) + "M" : v >= 1e4 ? Math.round(v / 1e3) + "k" : "" + +v.toPrecision(3);
  let data = null, paused = false, charts = [], keep = 3600;
  const names = el => el.dataset.chart.split(",").map(s => s.split(":"));
  const make = el => {
    const unit = el.dataset.unit, text = v => v == null ? "–" : unit === "B" ? size(v) : number(v) + (unit ? " " + unit : "");
    const axis = { stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 }, font: "12px system-ui, sans-serif" };
    const scale = el.dataset.log !== undefined ? { distr: 3, range: (u, lo, hi) => [Math.min(lo || .1, .1), Math.max(hi || 1, 1) * 1.5] } : { range: (u, lo, hi) => [0, Math.max(hi || 0, 1) * 1.1] };
    const plot = new uPlot({
      width: Math.max(el.clientWidth, 200), height: 170, cursor: { y: false, drag: { x: false, y: false } }, legend: { live: true },
      tzDate: t => uPlot.tzDate(new Date(t * 1e3), "Etc/UTC"), scales: { y: scale },
      axes: [{ ...axis, space: 70, values: (u, ts) => ts.map(t => new Date(t * 1e3).toISOString().slice(11, 19)) }, { ...axis, size: 62, values: (u, vs) => vs.map(v => v == null ? "" : unit === "B" ? size(v) : number(v)) }],
      series: [{ label: "UTC", value: (u, t) => t == null ? "–" : new Date(t * 1e3).toISOString().slice(11, 19) },
        ...names(el).map(([, label, c], i) => ({ label, stroke: colour(c), width: 1.75, dash: [[], [6, 3], [2, 3]][i], value: (u, v) => text(v), points: { show: false } }))],
    }, [[], ...names(el).map(() => [])], el);
    return { el, plot, text };
  };
  const draw = () => {
    for (const { el, plot, text } of charts) {
      const curves = names(el).map(([name]) => data[name]);
      plot.setData([data.time, ...curves]);
      const last = data.time.length - 1;
      if (last >= 0 && !el.matches(":hover")) plot.setLegend({ idx: last });
      el.setAttribute("aria-label", "Chart. Now: " + names(el).map(([name, label]) => label + " " + text(last < 0 ? null : data[name][last])).join(", "));
    }
  };
  const build = () => { for (const c of charts) c.plot.destroy(); charts = [...box.querySelectorAll("[data-chart]")].map(make); if (data) draw(); };
  const read = async () => {
    if (paused || document.hidden) return;
    const last = data && data.time.length ? data.time[data.time.length - 1] : 0;
    try {
      const answer = await fetch(box.dataset.charts + (last ? "&after=" + last : ""), { headers: { Accept: "application/json" } });
      if (answer.status === 401) { location.assign("/signin"); return; }
      if (!answer.ok) return;
      const more = await answer.json();
      if (!data) data = more;
      else for (const k of Object.keys(data)) { data[k].push(...more[k]); }
      if (data.time.length) { // what has left the window leaves the chart
        const from = data.time[data.time.length - 1] - keep, n = data.time.findIndex(t => t >= from);
        if (n > 0) for (const k of Object.keys(data)) data[k].splice(0, n);
      }
      draw();
    } catch { /* the node is away; the page says so, and the next reading tries again */ }
  };
  const spans = { m: 60, h: 3600 }, w = new URL(box.dataset.charts, location).searchParams.get("window") || "15m";
  keep = parseInt(w) * (spans[w.slice(-1)] || 60);
  build();
  read();
  setInterval(read, 2000);
  document.addEventListener("pause", e => { paused = e.detail; });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);
  new ResizeObserver(() => { for (const c of charts) { const w = Math.max(c.el.clientWidth, 200); if (Math.abs(w - c.plot.width) > 1) c.plot.setSize({ width: w, height: 170 }); } }).observe(box);
})();
