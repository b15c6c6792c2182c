// The queue: what runs and waits in the order in which it will be done, and what has ended. It asks the server about once a second while it is
// shown; what has not changed is left alone, so that nothing flickers and the focus stays where it is.

import { manyPrompts } from "./queue_many.js";
import { openRows } from "./queue_open.js";
import { endedRows } from "./queue_ended.js";
import { patience } from "./patience.js";
import { usage } from "./usage.js";

const SHOWN = 100;
const ENDED = 8;
const QUICK = 1000;
const SLOW = 5000;
const listeners = new Set();
let newest = 0; // open jobs, as far as anybody has asked

// Calls `fn` with the number of jobs that run or wait, and whether the queue is paused; who knows that it has changed asks `page.recount`. Where the panel asks anyway it costs nothing.
export function badge(page, fn) {
  listeners.add(fn);
  let timer;
  const look = async () => {
    clearTimeout(timer);
    if (!document.hidden && page.view !== "queue" && !page.server.lost) await page.server.get("api/line?limit=0").then(count, () => {});
    timer = setTimeout(look, SLOW);
  };
  page.recount = look;
  page.onView(() => look());
  document.addEventListener("visibilitychange", () => document.hidden || look());
  look();
}

function count(line) {
  newest = line.queued + line.running;
  listeners.forEach((fn) => fn(newest, line.is_paused));
}

export function mount(element, page) {
  const { el, replace, say, server } = page;
  const head = el("div", { class: "sm-row sm-queue-head" });
  const notice = el("p", { class: "sm-queue-paused", role: "status" });
  const open = el("ol", { class: "sm-queue-list" });
  const more = el("p", { class: "sm-soft" });
  const many = el("div");
  const batches = el("div", { class: "sm-queue-batches" });
  const ended = el("section", { class: "sm-queue-ended" });
  const used = el("div", { class: "sm-queue-usage" });
  const spoken = el("p", { class: "sm-spoken", role: "status" });
  element.append(el("h2", { class: "sm-spoken" }, say("nav.queue")), head, notice, open, more, many, batches, ended, used, spoken);
  const act = { run, speak: (text) => (spoken.textContent = text), poll: () => poll() };
  const rows = openRows(open, page, act);
  const past = endedRows(ended, batches, page, act);
  manyPrompts(many, page, act);
  usage(used, page);
  let line = null;
  let drawnHead = "";
  let openIds = null;
  let timer;
  let asking = 0;
  const errors = patience(page);

  async function poll() {
    clearTimeout(timer);
    if (page.view !== "queue") return;
    const mine = ++asking;
    let wait = document.hidden || server.lost ? SLOW : QUICK;
    try {
      const found = await server.get(`api/line?limit=${SHOWN}`);
      if (mine !== asking) return;
      line = found;
      count(line);
      draw();
      const ids = line.jobs.map((job) => job.id).sort().join();
      if (ids !== openIds) {
        await past.look(ENDED);
        openIds = ids;
      }
      errors.answered();
    } catch (error) {
      if (mine === asking) wait = errors.failed(error);
    }
    if (mine === asking) timer = setTimeout(poll, wait);
  }

  function draw() {
    drawHead();
    rows.draw(line.jobs, line.queued);
    const hidden = line.queued + line.running - line.jobs.length;
    const text = hidden > 0 ? say("queue.hidden", { count: hidden }) : "";
    if (more.textContent !== text) more.textContent = text;
  }

  function drawHead() {
    const left = line.remaining_seconds;
    const signature = JSON.stringify([line.queued, line.running, left && Math.round(left), line.own, line.is_paused, line.may_pause, page.language()]);
    if (signature === drawnHead) return;
    drawnHead = signature;
    const focus = head.contains(document.activeElement) ? document.activeElement.dataset.act : null;
    const time = left === null ? say("queue.unknown") : left < 1 ? say("time.moment") : say("time.left", { time: page.seconds(left) });
    const total = line.queued + line.running;
    const button = (name, fn, text) => el("button", { class: "sm-button sm-quiet", type: "button", "data-act": name, on: { click: fn } }, say(text));
    replace(head, el("p", {}, total ? [say("queue.counts", { running: line.running, queued: line.queued }), line.is_paused ? "" : ` · ${time}`] : ""), el("span", { class: "sm-space" }),
      line.own > 1 ? button("clear", cancelWaiting, line.own < line.queued ? "queue.clear.own" : "queue.clear") : null,
      line.may_pause ? button("pause", () => run(() => server.send("POST", line.is_paused ? "api/line/resume" : "api/line/pause")), line.is_paused ? "queue.resume" : "queue.pause") : null);
    if (focus) head.querySelector(`[data-act="${focus}"]`)?.focus();
    notice.hidden = !line.is_paused;
    notice.textContent = line.is_paused ? say("queue.paused") : "";
  }

  const cancelWaiting = () => run(async () => {
    const { jobs } = await server.send("POST", "api/line/cancel");
    page.toast(say("queue.cleared", { count: jobs.length }), { undo: () => run(() => server.send("POST", "api/line/retry", { jobs, in_place: true })) });
  });

  async function run(fn) {
    try {
      return await fn();
    } catch (error) {
      page.fail(error);
    } finally {
      openIds = null;
      poll();
    }
  }

  page.onView((view) => view === "queue" && ((openIds = null), poll()));
  page.onLanguage(() => {
    element.querySelector("h2").textContent = say("nav.queue");
    if (!line) return;
    drawnHead = "";
    rows.forget();
    past.forget();
    draw();
  });
  document.addEventListener("visibilitychange", () => document.hidden || poll());
  poll();
}
