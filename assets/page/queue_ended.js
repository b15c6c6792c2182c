// What has ended lately: of what failed, why and what can be done, with the button that does it; and batches, with a ZIP once they are done.

import { pathOf, thumbnail } from "./queue_parts.js";

const BATCHES = 3;

export function endedRows(element, batchPlace, page, act) {
  const { el, replace, say, server } = page;
  let jobs = [];
  let batches = [];
  let drawn = "";

  async function look(limit) {
    const found = await server.get(`api/jobs?status=failed&status=canceled&status=succeeded&limit=${limit}`);
    jobs = found.jobs;
    const ids = [...new Set(jobs.map((job) => job.batch).filter(Boolean))].slice(0, BATCHES);
    batches = await Promise.all(ids.map(batchOf));
    draw();
  }

  async function batchOf(id) {
    const { jobs: all, cursor } = await server.get(`api/jobs?batch=${encodeURIComponent(id)}&limit=200`);
    const open = all.filter((job) => ["queued", "running"].includes(job.status)).length;
    return { id, count: all.length, more: cursor !== null, open, made: all.filter((job) => job.status === "succeeded").length };
  }

  function draw() {
    const signature = JSON.stringify([jobs.map((job) => [job.id, job.status, job.title, job.outputs.length]), batches, page.language()]);
    if (signature === drawn) return;
    drawn = signature;
    const focus = element.contains(document.activeElement) ? document.activeElement.dataset : null;
    replace(batchPlace, batches.filter((batch) => batch.count > 1 || batch.more).map(drawBatch));
    replace(element, jobs.length ? el("h3", {}, say("queue.ended")) : null, jobs.length ? el("ul", { class: "sm-queue-list" }, jobs.map(rowOf)) : null);
    if (focus?.act) element.querySelector(`[data-job="${CSS.escape(focus.of)}"] [data-act="${focus.act}"]`)?.focus();
  }

  function drawBatch(batch) {
    const total = batch.more ? `${batch.count}+` : batch.count;
    const isDone = !batch.open && batch.made && !batch.more;
    return el("div", { class: "sm-row sm-card" }, el("span", {}, say(isDone ? "queue.batch.done" : "queue.batch", { made: batch.made, total })), el("span", { class: "sm-space" }),
      isDone ? el("a", { class: "sm-button", href: server.url(`api/files.zip?batch=${encodeURIComponent(batch.id)}`), download: "" }, say("queue.batch.zip")) : null);
  }

  function rowOf(job) {
    const picture = thumbnail(page);
    picture.show(job);
    const button = (name, fn, more = "sm-quiet") => el("button", { class: `sm-button ${more}`, type: "button", "data-act": name, "data-of": job.id, on: { click: () => act.run(fn) } }, say(`act.${name}`));
    const again = button("again", () => server.send("POST", `${pathOf(job)}/duplicate`, { new_seeds: true }));
    const retry = (more) => button("retry", () => server.send("POST", `${pathOf(job)}/retry`), more);
    const isFailed = job.status === "failed";
    const isShort = isFailed && job.error?.code === "out_of_memory";
    const said = isFailed && job.error ? el("p", { class: "sm-bad sm-queue-state" }, job.error.message, " ", el("span", {}, job.error.hint)) : el("p", { class: "sm-soft sm-queue-state" }, job.status === "succeeded" ? say("made.in", { time: page.seconds(job.run_seconds) }) : say(`status.${job.status}`));
    return el("li", { class: "sm-queue-row", "data-job": job.id }, picture.element,
      el("div", { class: "sm-queue-text" }, el("button", { class: "sm-queue-title", type: "button", "aria-label": say("queue.open", { title: job.title }), on: { click: () => page.openJob(job.id) } }, job.title || job.id), said),
      el("div", { class: "sm-row sm-queue-buttons" }, isShort ? button("smaller", () => smaller(job), "sm-primary") : null, job.status === "succeeded" ? again : retry(isFailed && !isShort ? "" : "sm-quiet")));
  }

  // Half the frames and 0.7 of each side: about a quarter of the memory.
  async function smaller(job) {
    const { template, values, workflow } = await server.send("POST", "api/open", { job: job.id });
    const less = (name, least, fit) => (values[name] ? { [name]: Math.max(least, fit(Number(values[name]))) } : {});
    const side = (length) => Math.round((length * 0.7) / 64) * 64;
    const change = { ...less("frames", 2, (frames) => Math.round(frames / 2)), ...less("width", 64, side), ...less("height", 64, side) };
    await server.send("POST", "api/films", template ? { template, ...values, ...change } : { workflow, ...change });
  }

  return { look, forget: () => ((drawn = ""), draw()) };
}
