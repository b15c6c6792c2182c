// What runs and waits: one row a job. A row is made once and then only what changed in it is changed. Waiting jobs are moved by dragging, by the
// arrow keys on the handle, or by buttons.

import { leftWord, pathOf, placeWord, shareOf, stageOf, stageWord, stepsWord, titleOf } from "./jobs_view.js";
import { thumbnail } from "./queue_parts.js";

export function openRows(list, page, act) {
  const { el, replace, say, server } = page;
  const rows = new Map();
  let jobs = [];
  let dragged = null;

  function draw(found) {
    if (dragged) return; // nothing moves under the hand
    jobs = found;
    const kept = new Set(jobs.map((job) => job.id));
    for (const [id, row] of rows) if (!kept.has(id)) (row.element.remove(), rows.delete(id));
    const focus = list.contains(document.activeElement) ? { row: document.activeElement.closest("[data-job]"), act: document.activeElement.dataset.act } : null;
    const owners = new Set(jobs.map((job) => job.owner));
    jobs.forEach((job, index) => {
      if (!rows.has(job.id)) rows.set(job.id, rowOf(job));
      const row = rows.get(job.id);
      if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null);
      row.update(job, owners.size > 1);
    });
    const nothing = list.querySelector(".sm-empty");
    if (!jobs.length && !nothing) list.append(el("li", { class: "sm-empty" }, el("p", {}, say("queue.empty")), el("button", { class: "sm-button", type: "button", on: { click: () => page.show("create") } }, say("queue.empty.go"))));
    if (jobs.length) nothing?.remove();
    if (focus?.row?.isConnected && !focus.row.contains(document.activeElement))
      (focus.row.querySelector(`[data-act="${focus.act}"]:not(:disabled)`) ?? focus.row.querySelector("[data-act]:not([hidden])")).focus();
  }

  function rowOf(first) {
    let job = first;
    let drawn = "";
    let furthest = 0; // it never goes back, until it is begun anew
    const picture = thumbnail(page);
    const title = el("button", { class: "sm-queue-title", type: "button", "data-act": "open", on: { click: () => page.openJob(job.id) } });
    const state = el("p", { class: "sm-soft sm-queue-state" });
    const bar = el("div", { class: "sm-bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, el("i"));
    const buttons = el("div", { class: "sm-row sm-queue-buttons" });
    const grip = el("button", { class: "sm-queue-grip", type: "button", "data-act": "move", on: { keydown: (event) => byKey(event, job), pointerdown: () => (element.draggable = true), pointerup: () => (element.draggable = false) } }, "⠿");
    const element = el("li", { class: "sm-queue-row", "data-job": job.id, on: { dragstart: (event) => begin(event, job, element), dragover: (event) => over(event, job, element), dragleave: () => mark(element), drop: (event) => drop(event, job, element), dragend: () => end(element) } },
      grip, picture.element, el("div", { class: "sm-queue-text" }, title, state, bar), buttons);

    function update(found, hasOwners) {
      job = found;
      picture.show(job);
      const now = stateOf(job);
      const isRunning = job.status === "running";
      const share = (furthest = isRunning ? Math.max(furthest, shareOf(job)) : 0);
      const signature = JSON.stringify([titleOf(page, job), job.status, now, share, job.is_cancel_requested, job.place, hasOwners, page.language(), canMove(job, -1), canMove(job, 1)]);
      if (signature === drawn) return;
      drawn = signature;
      title.textContent = titleOf(page, job);
      title.setAttribute("aria-label", say("queue.open", { title: titleOf(page, job) }));
      state.textContent = hasOwners && job.owner ? `${job.owner} · ${now}` : now;
      bar.hidden = !isRunning;
      bar.setAttribute("aria-label", say("progress"));
      bar.setAttribute("aria-valuenow", Math.round(share * 100));
      bar.firstChild.style.width = `${(share * 100).toFixed(1)}%`;
      element.classList.toggle("sm-is-running", isRunning);
      grip.hidden = isRunning;
      grip.setAttribute("aria-label", say("queue.move", { title: titleOf(page, job) }));
      grip.title = say("queue.move.how");
      replace(buttons,
        ...(isRunning ? [] : [button("front", "⤒", "queue.front", () => move(job, { to: "front" }), !canMove(job, -1)), button("up", "↑", "queue.up", () => step(job, -1), !canMove(job, -1)), button("down", "↓", "queue.down", () => step(job, 1), !canMove(job, 1))]),
        button("again", "↻", "queue.again", () => again(job)),
        el("button", { class: "sm-button", type: "button", "data-act": "cancel", disabled: job.is_cancel_requested, title: say(isRunning ? "queue.cancel.running" : "queue.cancel.queued"), on: { click: () => cancel(job) } }, say(job.is_cancel_requested ? "cancel.asked" : "cancel")));
    }

    function button(name, sign, key, fn, disabled = false) {
      const text = say(key, { title: titleOf(page, job) });
      return el("button", { class: "sm-button sm-quiet sm-queue-sign", type: "button", "data-act": name, "aria-label": text, title: text, disabled, on: { click: fn } }, sign);
    }

    return { element, update, forget: () => (drawn = "") };
  }

  // In words: the stage and what is left, or the place in the line.
  function stateOf(job) {
    const left = leftWord(page, job);
    if (job.status === "queued") return [placeWord(page, job.place ?? 1), left].filter(Boolean).join(" · ");
    const now = job.progress;
    const stage = !now?.stage ? say("status.running") : ["waking", "loading"].includes(now.stage) ? stepsWord(page, job) : `${stageWord(page, job, stageOf(job))} ${stepsWord(page, job)}`.trimEnd();
    return [stage, left].filter(Boolean).join(" · ");
  }

  // Among those of one owner that wait: only these change places with each other.
  const peers = (job) => jobs.filter((one) => one.status === "queued" && one.owner === job.owner);
  const canMove = (job, by) => job.status === "queued" && peers(job).findIndex((one) => one.id === job.id) + by >= 0 && peers(job).findIndex((one) => one.id === job.id) + by < peers(job).length;

  function step(job, by) {
    if (!canMove(job, by)) return;
    const line = peers(job);
    const index = line.findIndex((one) => one.id === job.id);
    const before = by < 0 ? line[index - 1] : line[index + 2];
    return move(job, before ? { before: before.id } : { to: index + by + 1 });
  }

  function move(job, body) {
    return act.run(async () => {
      const moved = await server.send("POST", `${pathOf(job)}/move`, body);
      act.speak(moved.place === 1 ? say("queue.next") : say("queue.at", { title: titleOf(page, job), place: moved.place }));
    });
  }

  function byKey(event, job) {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (by) (event.preventDefault(), step(job, by));
    if (event.key === "Home") (event.preventDefault(), move(job, { to: "front" }));
  }

  function begin(event, job, element) {
    if (job.status !== "queued" || !element.draggable) return event.preventDefault();
    dragged = job;
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/plain", titleOf(page, job));
    element.classList.add("sm-is-dragged");
  }

  const isTarget = (job) => dragged && job.id !== dragged.id && job.status === "queued" && job.owner === dragged.owner;
  const isAbove = (event, element) => event.clientY < element.getBoundingClientRect().top + element.offsetHeight / 2;
  const mark = (element, where) => ["above", "below"].forEach((name) => element.classList.toggle(`sm-drop-${name}`, name === where));

  function over(event, job, element) {
    if (!isTarget(job)) return;
    event.preventDefault();
    mark(element, isAbove(event, element) ? "above" : "below");
  }

  function drop(event, job, element) {
    if (!isTarget(job)) return;
    event.preventDefault();
    const moved = dragged;
    const line = peers(job).filter((one) => one.id !== moved.id);
    const index = line.findIndex((one) => one.id === job.id) + (isAbove(event, element) ? 0 : 1);
    mark(element);
    dragged = null;
    move(moved, line[index] ? { before: line[index].id } : { to: index + 1 });
  }

  function end(element) {
    dragged = null;
    element.draggable = false;
    element.classList.remove("sm-is-dragged");
    list.querySelectorAll(".sm-drop-above, .sm-drop-below").forEach((one) => mark(one));
  }

  const again = (job) => act.run(async () => {
    await server.send("POST", `${pathOf(job)}/duplicate`, { new_seeds: true });
    page.toast(say("queue.again.done", { title: titleOf(page, job) }));
  });

  const cancel = (job) => act.run(async () => {
    const found = await server.send("POST", `${pathOf(job)}/cancel`);
    const undo = () => act.run(() => server.send("POST", "api/line/retry", { jobs: [job.id], in_place: true }));
    page.toast(say(found.status === "canceled" ? "queue.canceled" : "queue.canceling", { title: titleOf(page, job) }), found.status === "canceled" ? { undo } : {});
  });

  return { draw, forget: () => (rows.forEach((row) => row.forget()), list.querySelector(".sm-empty")?.remove()) };
}
