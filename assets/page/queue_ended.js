// What has ended lately: of what failed, why and what can be done, with the button that does it; and batches, with a ZIP once they are done.

import { makeSmaller, pathOf, titleOf } from "./jobs_view.js";
import { thumbnail } from "./queue_parts.js";

const BATCHES = 3;

export function endedRows(element, batchPlace, page, act) {
  const { el, replace, say, server } = page;
  let jobs = [];
  let batches = [];
  let drawn = "";

  async function look(limit) {
    const [found, asked] = await Promise.all([
      server.get(`api/jobs?status=failed&status=canceled&status=succeeded&limit=${limit}`),
      server.get(`api/batches?limit=${BATCHES}`),
    ]);
    jobs = found.jobs;
    batches = asked.batches;
    draw();
  }

  function draw() {
    const signature = JSON.stringify([jobs.map((job) => [job.id, job.status, titleOf(page, job), job.outputs.length]), batches, page.language()]);
    if (signature === drawn) return;
    drawn = signature;
    const focus = element.contains(document.activeElement) ? document.activeElement.dataset : null;
    replace(batchPlace, batches.map(drawBatch));
    replace(element, jobs.length ? el("h3", {}, say("queue.ended")) : null, jobs.length ? el("ul", { class: "sm-queue-list" }, jobs.map(rowOf)) : null);
    if (focus?.act) element.querySelector(`[data-job="${CSS.escape(focus.of)}"] [data-act="${focus.act}"]`)?.focus();
  }

  function drawBatch(batch) {
    const { queued, running, succeeded: made } = batch.counts;
    const isDone = !queued && !running;
    return el("div", { class: "sm-row sm-card" }, el("span", {}, say(isDone ? "queue.batch.done" : "queue.batch", { made, total: batch.count }), el("span", { class: "sm-soft" }, ` · ${batch.title}`)), el("span", { class: "sm-space" }),
      isDone && made ? el("a", { class: "sm-button", href: server.url(`api/files.zip?batch=${encodeURIComponent(batch.id)}`), download: "" }, say("queue.batch.zip")) : null);
  }

  function rowOf(job) {
    const picture = thumbnail(page);
    picture.show(job);
    const button = (name, fn, more = "sm-quiet") => el("button", { class: `sm-button ${more}`, type: "button", "data-act": name, "data-of": job.id, on: { click: () => act.run(fn) } }, say(`act.${name}`));
    const again = button("again", () => server.send("POST", `${pathOf(job)}/duplicate`, { new_seeds: true }));
    const retry = (more) => button("retry", () => server.send("POST", `${pathOf(job)}/retry`), more);
    const isFailed = job.status === "failed";
    const isShort = isFailed && job.error?.code === "out_of_memory";
    const said = isFailed && job.error ? el("p", { class: "sm-bad sm-queue-state" }, page.sayError(job.error)) : el("p", { class: "sm-soft sm-queue-state" }, job.status === "succeeded" ? say("made.in", { time: page.seconds(job.run_seconds) }) : say(`status.${job.status}`));
    return el("li", { class: "sm-queue-row", "data-job": job.id }, picture.element,
      el("div", { class: "sm-queue-text" }, el("button", { class: "sm-queue-title", type: "button", "aria-label": say("queue.open", { title: titleOf(page, job) }), on: { click: () => page.openJob(job.id) } }, titleOf(page, job)), said),
      el("div", { class: "sm-row sm-queue-buttons" }, isShort ? button("smaller", () => makeSmaller(page, job), "sm-primary") : null, job.status === "succeeded" ? again : retry(isFailed && !isShort ? "" : "sm-quiet")));
  }

  return { look, forget: () => ((drawn = ""), draw()) };
}
